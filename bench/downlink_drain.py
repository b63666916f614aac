"""A backlog of commands through the gateway, and commands one by one: ``python -m bench.downlink_drain``.

For changes of the way down. The gateway of this checkout and, with ``--against``, that of another commit take turns at
backlogs of the same RocketMQ, each with a topic and a group of its own. Prints for each turn microseconds of CPU a
command (user and system) of the gateway, and those of RocketMQ, commands a second, how often the gateway gave the
processor away for a thousand commands, and the latencies of commands sent one by one; then the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.downlink import Devices, DownRun
from bench.environment import Case, Place, place_on
from bench.modes import mode
from bench.processes import Child, ChildError
from bench.procstat import cpu_seconds
from bench.revision import THIS, Code, checked_out
from bench.run import Timing
from bench.shapes import PLAIN
from bench.stats import percentile
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack import Devstack

MODES = ("downlink", "downlink_traced", "downlink_remoting")
FIRST, LAST = 0.15, 0.95
"""The part of a backlog that counts: a gateway that has just started, and one that runs dry, are something else."""
PATIENCE = 60.0
"""Seconds for one backlog."""
TRIES = 4
"""Of one turn."""
STEP = 0.02
NANO = 1e9


class Usage(NamedTuple):
    """What a process has used. Times in seconds."""

    at: float
    user: float
    system: float
    switches: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """As of now, over all threads (proc(5))."""
        stat = Path(f"/proc/{pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2 :].split()
        switches = 0
        run_ns = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            run_ns += int((task / "schedstat").read_text().split()[0])
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    switches += int(line.split()[1])
        user, system = int(fields[11]), int(fields[12])
        share = user / max(1, user + system)  # ticks are coarse, the sum is not
        return cls(time.perf_counter(), run_ns / NANO * share, run_ns / NANO * (1 - share), switches)


class Turn(NamedTuple):
    """One turn. Times in microseconds a command, latencies in milliseconds."""

    user: float
    system: float
    rate: float
    switches: float
    rocketmq: float
    p50: float
    p99: float

    @property
    def cpu(self) -> float:
        """Both together."""
        return self.user + self.system

    def __str__(self) -> str:
        text = f"{self.cpu:6.1f} µs ({self.user:5.1f} + {self.system:4.1f})  {self.rate:7,.0f} msg/s  "
        text += f"{self.switches:5.0f} switches  RocketMQ {self.rocketmq:6.1f} µs  "
        return text + f"p50 {self.p50:5.2f} ms  p99 {self.p99:6.1f} ms"


class Drain(DownRun):
    """Takes one backlog."""

    def turn(self, count: int, paced: int, rocketmq: int) -> Turn:
        """Store ``count`` commands, start the gateway, watch it take them; then ``paced`` commands one by one.

        :raises ChildError: a process ended, or the backlog was not taken in time.
        """
        self._place.commands(self._topic, self._case.shape.message_type)
        with self._start_device() as device, self._start_commander() as commander:
            self._store(commander, count)
            with self._start_bridge() as bridge:
                devices = Devices(device)
                before, theirs = self._until(devices, int(count * FIRST), bridge), cpu_seconds(rocketmq)
                after = self._until(devices, int(count * LAST), bridge)
                theirs = cpu_seconds(rocketmq) - theirs
                self._until(devices, count, bridge)
                time.sleep(1.0)
                if paced:
                    commander.tell(f"pace 100 {paced}")
                    commander.hear(timeout=PATIENCE)
                    self._until(devices, count + paced, bridge)
                bridge.stop()
            commander.ask("stop")
            latencies = json.loads(device.ask("stop"))["latencies"] or [float("nan")]
        taken = after[1] - before[1]
        used = [(b - a) / taken for a, b in zip(before[0], after[0], strict=True)]
        return Turn(
            used[1] * 1e6, used[2] * 1e6, 1 / used[0], used[3] * 1e3, theirs / taken * 1e6,
            percentile(latencies, 0.5), percentile(latencies, 0.99),
        )  # fmt: skip

    def _store(self, commander: Child, count: int) -> None:
        commander.tell(f"limit {count}")
        while int(commander.ask("published")) < count:
            time.sleep(STEP)

    def _until(self, devices: Devices, count: int, bridge: Child) -> tuple[Usage, int]:
        deadline = time.monotonic() + PATIENCE
        while (arrived := devices.arrived()) < count:
            if time.monotonic() > deadline or not bridge.alive:
                raise ChildError(f"{self._case.label}: {arrived} of {count} commands came; {bridge.tail()}")
            time.sleep(STEP)
        return Usage.of(bridge.pid), arrived


def turns(place: Place, rocketmq: int, cases: list[Case], options: argparse.Namespace) -> Iterator[tuple[Case, Turn]]:
    """Turn by turn; the first of each case does not count and is not told of."""
    run_id = int(time.time()) & 0xFFFFFF
    for number in range(-options.warm_up, options.runs):
        first = number % len(cases)
        for case in (*cases[first:], *cases[:first]):
            for left in reversed(range(TRIES)):
                run_id += 1
                drain = Drain(place, case, run_id, Timing(), lambda text: None)
                drain.receive_by = options.receive_by
                try:
                    turn = drain.turn(options.messages, options.paced, rocketmq)
                    break
                except ChildError as error:  # a cold RocketMQ on a busy machine
                    print(f"{case.label:<34} {error}", flush=True)
                    if not left:
                        raise
            print(f"{case.label:<34} {turn}{'' if number >= 0 else '  (not counted)'}", flush=True)
            if number >= 0:
                yield case, turn


def main() -> None:
    """Start brokers and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REV", help="the gateway of this commit takes turns with this one's")
    parser.add_argument("--mode", action="append", choices=MODES, help="repeatable")
    parser.add_argument("--receive-by", choices=("auto", "pop", "pull"), default="auto", help="by remoting")
    parser.add_argument("--messages", type=int, default=12_800, help="in each backlog")
    parser.add_argument("--paced", type=int, default=200, help="commands sent one by one")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1, help="runs before those that count")
    options = parser.parse_args()
    with contextlib.ExitStack() as exits:
        codes: list[Code] = [THIS]
        if options.against:
            codes.append(exits.enter_context(checked_out(options.against)))
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="spanbridge-bench-")))
        receiver = exits.enter_context(OtlpReceiver(decode=False))
        stack = exits.enter_context(Devstack.up(full_speed=True, mqtt_v311=False))
        place = place_on(stack, [PLAIN], directory, receiver.environment("http/protobuf"))
        cases = [Case(shape=PLAIN, mode=mode(name), code=code) for name in options.mode or MODES for code in codes]
        found: dict[str, list[Turn]] = {}
        assert stack.rocketmq.pid is not None
        for case, turn in turns(place, stack.rocketmq.pid, cases, options):
            found.setdefault(case.label, []).append(turn)
    for label, some in found.items():
        print(f"{label:<34} {Turn(*(statistics.median(values) for values in zip(*some, strict=True)))}  median")


if __name__ == "__main__":
    main()
