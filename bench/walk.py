"""``python -m bench.walk``: the way of one message through our own code, call by call, and how long it is.

A gateway with the README's configuration runs on real brokers; traced messages of one device are sent one at a time.
What is shown is the walk that most of them took: the first message of the topic and the work of timers fall out.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.markup import escape

from bench.environment import NEUTRAL, Place, place_on
from bench.packets import Packets, connect, template
from bench.payload import Phase
from bench.processes import Child, ChildError
from bench.remoting import Broker
from bench.revision import THIS
from bench.shapes import QUEUES, shape
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack import Devstack

STARTS = 60.0
"""Seconds in which the gateway has to be ready."""
WARM = 3
"""Messages before the first one that counts."""
MESSAGES = 15
QUIET = 0.15
"""Seconds after a message was stored in which its acknowledgement leaves and its spans are handed over."""


class Call(NamedTuple):
    """A Python function of ours begins, or a coroutine or generator of ours goes on. ``depth`` counts our callers."""

    depth: int
    file: str
    line: int
    name: str


Walk = tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """How long a walk is. ``changes``: calls in another file than the call before."""

    calls: int
    files: int
    changes: int

    @classmethod
    def of(cls, walk: Walk) -> Numbers:
        """Count."""
        changes = sum(a.file != b.file for a, b in pairwise(walk))
        return cls(calls=len(walk), files=len({call.file for call in walk}), changes=changes)


def usual(walks: list[Walk]) -> tuple[Walk, int]:
    """The walk that most messages took (of several the shortest), and how many took it."""
    counted = Counter(walks)
    most = max(counted.values())
    return min((walk for walk, count in counted.items() if count == most), key=len), most


def outermost_first(calls: list[list[Any]]) -> Walk:
    """Calls as the gateway noted them, with depths that begin at 0."""
    base = min((depth for _, depth, *_ in calls), default=0)
    return tuple(Call(depth - base, file, line, name) for _, depth, file, line, name in calls)


class Device:
    """An MQTT 5 device with one topic, which waits for each message to be stored."""

    def __init__(self, place: Place, queues: Broker) -> None:
        self._shape = replace(shape("readme"), devices=1, variants=((1, ()),))
        self._packets = Packets(template(self._shape, 1, self._shape.carrier, 100), 0, 1)
        self._queues = queues
        self._sent = 0
        self._socket = socket.create_connection((place.mqtt_host, place.mqtt_port), 10)
        self._socket.sendall(connect("5", b"bench-walk"))
        self._socket.recv(1024)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def publish(self, timeout: float) -> bool:
        """Publish one message; whether it was stored within ``timeout`` seconds."""
        before = self._stored()
        self._socket.sendall(self._packets.encode(1, Phase.LOAD, self._sent, {}))
        self._sent += 1
        self._socket.recv(1024)
        deadline = time.monotonic() + timeout
        while self._stored() == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _stored(self) -> int:
        return sum(self._queues.max_offsets(self._shape.topic, QUEUES))


def walks_on(place: Place, messages: int = MESSAGES) -> list[Walk]:
    """Start the gateway, send it messages, and return the walks of those that found everything warm.

    :raises ChildError: the gateway ended, or a message did not come through.
    """
    of = shape("readme")
    config = place.directory / "walk.toml"
    config.write_text(of.config(place.setting(1)))
    env = NEUTRAL | place.otlp | THIS.environment | of.environment | {"OTEL_TRACES_EXPORTER": "otlp"}
    command = [sys.executable, "-m", "bench.walk_gateway", "run", "-c", str(config)]
    walks = []
    with (
        Broker(place.broker_address) as broker,
        Child(command, place.directory / "gateway.log", env) as gateway,
        Device(place, broker) as device,
    ):
        deadline = time.monotonic() + STARTS
        while not device.publish(timeout=0.5):
            if not gateway.alive or time.monotonic() > deadline:
                raise ChildError(f"no message came through the gateway: {gateway.tail()}")
        for number in range(WARM + messages):
            time.sleep(QUIET)
            begin = time.monotonic_ns()
            if not device.publish(timeout=10):
                raise ChildError(f"a message did not come through: {gateway.tail()}")
            time.sleep(QUIET)
            calls = json.loads(gateway.ask(str(begin)))
            if number >= WARM:
                walks.append(outermost_first(calls))
    return walks


def _steps(walk: Walk) -> Iterator[tuple[bool, str, str]]:
    """For each stay in a file: whether a new turn of the event loop begins, the file, the calls in it."""
    for file, stay in groupby(walk, key=lambda call: call.file):
        calls = list(stay)
        names = [(name, len(list(same))) for name, same in groupby(call.name for call in calls)]
        told = ", ".join(name if count == 1 else f"{name} (× {count})" for name, count in names)  # noqa: RUF001
        yield calls[0].depth == 0, file, told.replace(".<locals>", "")


def print_walk(console: Console, walk: Walk, *, every_call: bool) -> None:
    """File by file, or call by call with the depth as indentation."""
    if every_call:
        for call in walk:
            place = f"{call.file}:{call.line}"
            console.print(f"[dim]{place:<44}[/] {'  ' * call.depth}{escape(call.name)}", highlight=False)
        return
    for number, (begins, file, told) in enumerate(_steps(walk)):
        if begins:
            console.print("[cyan]event loop[/]", highlight=False)
        console.print(f"[dim]{number:>4}[/] [bold]{file:<38}[/] {escape(told)}", highlight=False, soft_wrap=True)


def main() -> int:
    """Print the walk and the three numbers."""
    parser = argparse.ArgumentParser(prog="python -m bench.walk", description=__doc__)
    parser.add_argument("--calls", action="store_true", help="print every call with its depth, not file by file")
    parser.add_argument("--json", action="store_true", help="print the numbers and the walk as JSON in the last line")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    with ExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="spanbridge-walk-")))
        receiver = exits.enter_context(OtlpReceiver(decode=False))
        stack = exits.enter_context(Devstack.up())
        place = place_on(stack, [shape("readme")], directory, receiver.environment("http/protobuf"))
        try:
            walk, times = usual(walks_on(place))
        except ChildError as error:
            console.print(f"[red]the walk stopped:[/] {error}")
            return 1
    print_walk(console, walk, every_call=options.calls)
    numbers = Numbers.of(walk)
    console.print(
        f"\n[bold]{numbers.calls}[/] Python calls, [bold]{numbers.files}[/] files, "
        f"[bold]{numbers.changes}[/] changes of file   [dim](so did {times} of {MESSAGES} messages)[/]",
        highlight=False,
    )
    if options.json:
        print(json.dumps(asdict(numbers) | {"walk": [call._asdict() for call in walk]}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
