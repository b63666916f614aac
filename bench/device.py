"""The devices of the benchmark's downlink: MQTT subscribers on bare ``asyncio.Protocol`` that count what they get.

A process of its own, driven by lines on standard input; each is answered by one line::

    received         how many different messages have come
    missing N        of the messages numbered below N, those that have not come, as a JSON list
    stop             a JSON object: ``received``, ``again`` (messages that came once more), ``late`` (messages that came
                     after a later one of their topic, for the first time), ``latencies`` (ms, of the paced ones)

Each connection subscribes to the topics of its share of the devices, with QoS 1, and acknowledges what it gets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import cast

from bench.loadgen import READ_PAUSE, abort, say
from bench.packets import connect, string, varint
from bench.payload import SIZE, Phase, unpack

MANY = 16
"""Messages in one read from which on the next read may wait: many come in one then, as in the load generator."""
MOST = 1 << 24
"""Messages that a run may have."""


def subscribe(version: str, topics: list[str]) -> bytes:
    """SUBSCRIBE with packet identifier 1 and QoS 1 (MQTT 5.0 section 3.8)."""
    body = b"\x00\x01" + (b"\x00" if version == "5" else b"")
    body += b"".join(string(topic.encode()) + b"\x01" for topic in topics)
    return b"\x82" + varint(len(body)) + body


def topic_of(run_id: int, device: int) -> str:
    """The MQTT topic of a device."""
    return f"bench/{run_id}/{device_name(device)}"


def device_name(device: int) -> str:
    """What the devices are called: the key of their commands."""
    return f"device-{device:05d}"


class Ledger:
    """What has come, over all connections."""

    def __init__(self, run_id: int) -> None:
        self.received = 0
        self.again = 0
        self.late = 0
        self.latencies: list[float] = []
        self._run_id = run_id
        self._seen = bytearray(MOST)
        self._latest: dict[bytes, int] = {}

    def enter(self, topic: bytes, payload: bytes, now_ns: int) -> None:
        """Count a message. Those of another run do not count.

        :raises ValueError: the payload is not one of the benchmark's.
        """
        run, phase, seq, sent_ns = unpack(payload)
        if run != self._run_id:
            return
        if self._seen[seq]:
            self.again += 1
            return
        self._seen[seq] = 1
        self.received += 1
        if seq < self._latest.get(topic, -1):
            self.late += 1
        self._latest[topic] = seq
        if phase == Phase.PACED:
            self.latencies.append((now_ns - sent_ns) / 1e6)

    def missing(self, count: int) -> list[int]:
        """The numbers below ``count`` that have not come."""
        return [seq for seq in range(count) if not self._seen[seq]]


class Subscriber(asyncio.Protocol):
    """One connection. ``ready`` is done once it is subscribed."""

    def __init__(self, ledger: Ledger, hello: bytes, wanted: bytes, fail: Callable[[str], None]) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._hello = hello
        self._wanted = wanted
        self._fail = fail
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the broker closed a device's connection: {exc}")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        now_ns = time.time_ns()
        answers: list[bytes] = []
        at, size = 0, len(buffer)
        while at + 2 <= size:
            length, head = buffer[at + 1], at + 2
            if length & 0x80:
                if head >= size:
                    break
                length, head = (length & 0x7F) | buffer[head] << 7, head + 1  # packets stay under 16384 bytes here
            if head + length > size:
                break
            self._take(buffer, at, head, head + length, now_ns, answers)
            at = head + length
        self._buffer = buffer[at:]
        if answers:
            self._transport.write(b"".join(answers))
        if len(answers) >= MANY:
            self._transport.pause_reading()
            self._loop.call_later(READ_PAUSE, self._read_on)

    def _take(self, buffer: bytes, at: int, head: int, end: int, now_ns: int, answers: list[bytes]) -> None:
        kind = buffer[at] & 0xF0
        if kind == 0x30:
            middle = head + 2 + (buffer[head] << 8 | buffer[head + 1])
            if buffer[at] & 0x06:
                answers.append(b"\x40\x02" + buffer[middle : middle + 2])
            try:
                self._ledger.enter(buffer[head + 2 : middle], buffer[end - SIZE : end], now_ns)
            except ValueError as error:
                self._fail(str(error))
        elif kind == 0x20:
            if buffer[head + 1] != 0:
                self._fail(f"the broker refused a device: reason code {buffer[head + 1]:#x}")
            self._transport.write(self._wanted)
        elif kind == 0x90:
            if any(code > 2 for code in buffer[head + 3 : end]):
                self._fail("the broker refused a device's subscription")
            self.ready.set_result(None)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()


async def run(options: argparse.Namespace) -> None:
    """Subscribe, say ``ready``, answer."""
    loop = asyncio.get_running_loop()
    ledger = Ledger(options.run_id)
    stopping = False

    def fail(why: str) -> None:
        if not stopping:
            abort(why)

    for number in range(options.connections):
        topics = [topic_of(options.run_id, device) for device in range(number, options.devices, options.connections)]
        hello = connect("5", f"bench-{options.run_id}-device-{number}".encode())
        wanted = subscribe("5", topics)
        _, subscriber = await loop.create_connection(
            lambda hello=hello, wanted=wanted: Subscriber(ledger, hello, wanted, fail),  # type: ignore[misc]
            options.host,
            options.port,
        )
        await subscriber.ready
    say("ready")
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        words = line.split()
        if words[0] == b"received":
            say(str(ledger.received))
        elif words[0] == b"missing":
            say(json.dumps(ledger.missing(int(words[1]))))
        elif words[0] == b"stop":
            break
    stopping = True
    counts = {"received": ledger.received, "again": ledger.again, "late": ledger.late}
    say(json.dumps(counts | {"latencies": ledger.latencies}))


def main() -> None:
    """Parse the command line and run until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--run-id", type=int, required=True)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    try:
        import uvloop  # noqa: PLC0415

        uvloop.run(run(options))
    except ImportError:
        asyncio.run(run(options))


if __name__ == "__main__":
    main()
