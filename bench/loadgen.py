"""Load generator: an MQTT publisher on bare ``asyncio.Protocol`` with packets encoded ahead as far as possible.

A process of its own, driven by lines on standard input: it shares nothing but the broker with what is measured::

    probe            publish one message of the probe phase
    limit N          publish load messages until N of them have been published in all
    pace RATE COUNT  publish COUNT messages at RATE a second, at random intervals
    waited           print for how many seconds in all there was nothing to publish
    published        print how many messages have been published
    stop             wait for the outstanding PUBACKs, print the result as one JSON line and end

``limit`` keeps the backlog in the broker bounded whatever the bridge's rate is: the benchmark raises it as messages
arrive in RocketMQ. After ``pace`` is done the line ``paced`` is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn, cast

from bench.packets import Packets, connect, template
from bench.payload import Phase
from bench.shapes import SHAPES, shape

CHUNK = 128
"""Packets joined into one write."""

READ_PAUSE = 0.002
"""Seconds between two reads of a connection."""


class Progress:
    """What all connections of the generator share: the sequence, the limit, what is not acknowledged yet."""

    def __init__(self) -> None:
        self.published = 0
        self.load_published = 0
        self.limit = 0
        self.refused = 0
        self.waiting_since: float | None = time.monotonic()
        self.waited = 0.0

    def starve(self) -> None:
        """There is nothing to publish: the bridge is the limit."""
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def feed(self) -> None:
        """There is something to publish again."""
        if self.waiting_since is not None:
            self.waited += time.monotonic() - self.waiting_since
            self.waiting_since = None

    def waited_now(self) -> float:
        """For how many seconds in all there was nothing to publish."""
        waiting = 0.0 if self.waiting_since is None else time.monotonic() - self.waiting_since
        return self.waited + waiting


class Options(NamedTuple):
    """What a connection is told; ``window`` is how many of its publishes may be unacknowledged."""

    window: int
    version: str
    client_id: bytes


class Publisher(asyncio.Protocol):
    """One connection with a window of unacknowledged QoS 1 publishes."""

    def __init__(self, progress: Progress, packets: Packets, options: Options, fail: Callable[[str], None]) -> None:
        self.progress = progress
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.unacked: dict[int, int] = {}
        self._packets = packets
        self._window = options.window
        self._hello = connect(options.version, options.client_id)
        self._writable = True
        self._buffer = b""
        self._fail = fail
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=1 << 18)
        self._transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the broker closed the generator's connection: {exc}")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.pump()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        acknowledge = self.unacked.pop
        at, size = 0, len(buffer)
        while at + 2 <= size:
            length = buffer[at + 1]  # CONNACK and PUBACK stay under 128 bytes here
            end = at + 2 + length
            if end > size:
                break
            if buffer[at] == 0x40:
                known = acknowledge(buffer[at + 2] << 8 | buffer[at + 3], None) is not None
                if length > 2 and buffer[at + 4] != 0 and known:  # 0x10: nobody is subscribed
                    self.progress.refused += 1
            elif buffer[at] == 0x20:
                self._on_connack(buffer[at + 2 : end])
            at = end
        self._buffer = buffer[at:]
        self.pump()
        # The broker writes each PUBACK by itself. A short pause lets many of them come in one read.
        self._transport.pause_reading()
        self._loop.call_later(READ_PAUSE, self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _on_connack(self, body: bytes) -> None:
        if body[1] != 0:
            self._fail(f"the broker refused the generator: reason code {body[1]:#x}")
            return
        self._window = min(self._window, receive_maximum(body[3:]))
        self.ready.set_result(None)

    def pump(self) -> None:
        """Publish while the window, the socket and the limit allow it."""
        progress = self.progress
        while self._writable:
            count = min(CHUNK, self._window - len(self.unacked), progress.limit - progress.load_published)
            if count <= 0:
                break
            progress.feed()
            progress.load_published += count
            self._write(count, Phase.LOAD)
        if progress.load_published >= progress.limit:
            progress.starve()

    def publish(self, phase: Phase) -> None:
        """Publish one message now, window or not."""
        self._write(1, phase)

    def _write(self, count: int, phase: Phase) -> None:
        seq = self.progress.published
        self.progress.published = seq + count
        self._transport.write(self._packets.encode(count, phase, seq, self.unacked))


def receive_maximum(properties: bytes) -> int:
    """Receive Maximum out of CONNACK's properties, skipping the other ones of fixed size; 65535 when not found."""
    sizes = {0x11: 4, 0x24: 1, 0x25: 1, 0x27: 4, 0x22: 2, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2, 0x21: 2}
    at = 0
    while at < len(properties):
        identifier = properties[at]
        if identifier == 0x21:
            return int.from_bytes(properties[at + 1 : at + 3], "big")
        if identifier in (0x12, 0x1F, 0x1A, 0x1C, 0x15):
            at += 3 + int.from_bytes(properties[at + 1 : at + 3], "big")
        else:
            at += 1 + sizes.get(identifier, len(properties))
    return 65535


class Generator:
    """Reads commands, drives the publishers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._progress = Progress()
        self._publishers: list[Publisher] = []
        self._stopping = False

    async def run(self) -> None:
        """Connect, obey, report."""
        loop = asyncio.get_running_loop()
        options = self._options
        made = template(shape(options.shape), options.run_id, options.carrier, options.sampled)
        for number in range(options.connections):
            client_id = f"bench-{options.run_id}-generator-{number}".encode()
            own = Options(options.window, made.shape.version, client_id)
            packets = Packets(made, number, options.connections)
            _, publisher = await loop.create_connection(
                lambda packets=packets, own=own: Publisher(self._progress, packets, own, self._fail),  # type: ignore[misc]
                options.host,
                options.port,
            )
            self._publishers.append(publisher)
            await publisher.ready
        say("ready")
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            words = line.split()
            if words[0] == b"stop":
                break
            await self._obey(words)
        await self._finish()

    async def _obey(self, words: list[bytes]) -> None:
        if words[0] == b"limit":
            self._progress.limit = int(words[1])
            for publisher in self._publishers:
                publisher.pump()
        elif words[0] == b"probe":
            self._publishers[0].publish(Phase.PROBE)
        elif words[0] == b"waited":
            say(str(self._progress.waited_now()))
        elif words[0] == b"published":
            say(str(self._progress.published))
        elif words[0] == b"pace":
            await self._pace(float(words[1]), int(words[2]))
            say("paced")

    async def _pace(self, rate: float, count: int) -> None:
        # Random intervals: RocketMQ stamps whole milliseconds, and a fixed beat would meet the same phase of each.
        for number in range(count):
            self._publishers[number % len(self._publishers)].publish(Phase.PACED)
            await asyncio.sleep(random.uniform(0.5, 1.5) / rate)

    async def _finish(self) -> None:
        deadline = time.monotonic() + 10
        while any(publisher.unacked for publisher in self._publishers) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        unacked = [seq for publisher in self._publishers for seq in publisher.unacked.values()]
        self._stopping = True
        say(
            json.dumps(
                {"published": self._progress.published, "refused": self._progress.refused, "unacked": sorted(unacked)}
            )
        )

    def _fail(self, why: str) -> None:
        if not self._stopping:
            abort(why)


def say(line: str) -> None:
    """Answer the benchmark."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def abort(why: str) -> NoReturn:
    """End at once: the run is worthless."""
    sys.stderr.write(f"load generator: {why}\n")
    sys.stderr.flush()
    os._exit(3)


def main() -> None:
    """Parse the command line and run until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--run-id", type=int, required=True)
    parser.add_argument("--shape", choices=[one.name for one in SHAPES], default=SHAPES[0].name)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--window", type=int, default=512, help="unacknowledged publishes a connection")
    parser.add_argument("--carrier", choices=["none", "tp", "traceparent", "suffix"], default="none")
    parser.add_argument("--sampled", type=int, default=100, help="of a hundred contexts, how many are sampled")
    options = parser.parse_args()
    try:
        import uvloop  # noqa: PLC0415

        uvloop.run(Generator(options).run())
    except ImportError:
        asyncio.run(Generator(options).run())


if __name__ == "__main__":
    main()
