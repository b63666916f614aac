"""What the spool costs: ``python -m bench.spool [--messages N] [--backlog N] [--size BYTES] [--directory DIR]``.

The gateway's own pipeline runs in this process between a source and a sink that answer at once, so that what is counted
is the pipeline and the disk. Prints one JSON object; times are of this machine, and of whatever else runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.app.clock import SystemClock
from spanbridge.core import spooled as form
from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkUnavailable
from spanbridge.core.message import Destination, Publish
from spanbridge.core.routes import Route, TopicFilter
from spanbridge.core.spooled import Spooled, TraceIds
from spanbridge.core.template import Template
from spanbridge.ports import Deliver, Link, PeerStatus, Released
from spanbridge.rocketmq.grpc.encode import Encoder, MessageHead
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.segments import SegmentSpool, SpoolOptions
from spanbridge.spool.store import Store, StoreLimits
from spanbridge.telemetry import MessageMetrics, Peer, Tracer
from spanbridge.uplink import SpillSettings, Uplink, UplinkSettings

WINDOW = 4096
DRAINED = 100_000
"""Messages of the backlog that go on while memory is looked at."""
READ = 128
"""Messages of one read of the socket."""


class Nothing:
    """Takes spans and events, and keeps none."""

    def add(self, pieces: object, each: int = 1) -> None: ...

    def report(self, _: object) -> None: ...


class StraightSource:
    """A source with messages at hand."""

    name = "mqtt"

    def __init__(self) -> None:
        self.unacked = self.held = self.held_bytes = 0
        self.status = PeerStatus("mqtt", Link.UP, 0, None, {})
        self._deliver: Deliver[Publish]
        self._closed = asyncio.Event()
        self._acked = asyncio.Event()

    async def run(self, deliver: Deliver[Publish], _: Released) -> None:
        self._deliver = deliver
        await self._closed.wait()

    async def feed(self, count: int, size: int) -> None:
        """Deliver so many messages, and wait until all are acknowledged."""
        payload = bytes(size)
        for at in range(0, count, READ):
            while self.unacked > WINDOW - READ:
                self._acked.clear()
                await self._acked.wait()
            now, arrived = time.time_ns(), time.monotonic_ns()
            found = []
            for number in range(at, min(count, at + READ)):
                publish = Publish(f"devices/d{number % 100:02}/telemetry", payload, qos=1, received_ns=now)
                found.append(Delivery(publish, self, size, arrived))
            self.unacked += len(found)
            self._deliver(found)
            await asyncio.sleep(0)
        while self.unacked:
            self._acked.clear()
            await self._acked.wait()

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        self.unacked -= len(deliveries)
        self._acked.set()

    def nack(self, deliveries: Sequence[Delivery[Publish]], cause: str) -> None:
        raise RuntimeError(cause)

    def oldest_ns(self) -> int | None:
        return None

    def unrepeatable(self) -> list[Delivery[Publish]]:
        return []

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def stop_intake(self) -> None: ...

    async def close(self) -> None:
        self._closed.set()


class StraightSink:
    """A sink that takes everything at once, or nothing."""

    def __init__(self) -> None:
        self.away = False
        self.stored = 0
        self.status = PeerStatus("rocketmq", Link.UP, 0, None, {})
        self._encoder = Encoder(MessageIds())
        self._wanted = 0
        self._reached = asyncio.Event()

    def head(self, destination: Destination) -> MessageHead:
        return self._encoder.head(destination)

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        del topic, partition
        await asyncio.sleep(0)
        if self.away:
            self.status = PeerStatus("rocketmq", Link.BACKOFF, 0, None, {})
            raise SinkUnavailable("away")
        self.status = PeerStatus("rocketmq", Link.UP, 0, None, {})
        self.stored += len(batch)
        if self.stored >= self._wanted:
            self._reached.set()

    async def reach(self, count: int) -> None:
        """Wait until so many are stored."""
        self._wanted = count
        self._reached.clear()
        if self.stored < count:
            await self._reached.wait()

    async def start(self) -> None: ...

    async def probe(self) -> None: ...

    async def close(self) -> None: ...


class Stopwatch:
    """Messages a second and CPU time a message, of the whole process."""

    def __init__(self) -> None:
        self._begun, self._cpu = time.monotonic(), time.process_time()

    def read(self, count: int) -> dict[str, float]:
        seconds, cpu = time.monotonic() - self._begun, time.process_time() - self._cpu
        return {"messages_per_s": round(count / seconds), "cpu_us": round(cpu / count * 1e6, 1)}


async def outage(directory: Path, messages: int, size: int) -> dict[str, Any]:
    """Live, spilling and draining with the same pipeline."""
    source, sink, nothing = StraightSource(), StraightSink(), Nothing()
    spool = SegmentSpool(SpoolOptions(path=directory, max_bytes=1 << 40, reserve=0), nothing)
    clock = SystemClock()
    uplink = Uplink(
        sink,
        tracer=Tracer(nothing, sampler=ALWAYS_ON),
        metrics=MessageMetrics(None, None),
        reporter=nothing,
        clock=clock,
        settings=UplinkSettings(gateway="bench", spill=SpillSettings(after=5.0)),
        spool=spool,
        boot_ns=clock.boot_ns,
    )
    route = Route(name="r", filter=TopicFilter.parse("devices/{device}/telemetry"), topic=Template.parse("telemetry"))
    uplink.attach(source, [route], Peer("broker", 1883, "bench"))
    await spool.start()
    running = asyncio.create_task(uplink.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    found: dict[str, Any] = {}
    watch = Stopwatch()
    await source.feed(messages, size)
    found["live"] = watch.read(messages)
    sink.away = True
    await source.feed(1, size)  # it makes the partition spill
    watch = Stopwatch()
    await source.feed(messages, size)
    found["spilling"] = watch.read(messages)
    found["spilling"]["bytes_per_payload_byte"] = round(spool.size / ((messages + 1) * size), 3)
    stored, sink.away = sink.stored, False
    await sink.reach(stored + 1)  # the first attempt after the pause
    watch, before = Stopwatch(), sink.stored
    await sink.reach(stored + messages + 1)
    found["draining"] = watch.read(sink.stored - before)
    # Of CPU time, not of rates: what else runs on the machine takes turns between the two.
    found["draining"]["share_of_live"] = round(found["live"]["cpu_us"] / found["draining"]["cpu_us"], 2)
    await uplink.drain(1)
    await running
    await spool.stop()
    return found


def fill(directory: Path, messages: int, size: int) -> None:
    """Leave a backlog in a directory."""
    store = Store(RealDisk(directory), StoreLimits(total=1 << 40, reserve=0))
    publish = Publish("devices/d00/telemetry", bytes(size), qos=1, received_ns=time.time_ns())
    body = form.encode(Spooled(publish, publish.received_ns, TraceIds(bytes(16), bytes(8), bytes(8))))
    for at in range(0, messages, 4096):
        store.commit([(form.MESSAGE, body)] * min(4096, messages - at))
    store.close()


async def backlog(directory: Path) -> dict[str, Any]:
    """Open a directory; memory while the first of it drains."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spool = SegmentSpool(SpoolOptions(path=directory, max_bytes=1 << 40, reserve=0), Nothing())
    begun, cpu = time.monotonic(), time.process_time()
    await spool.start()
    opened, opened_cpu = time.monotonic() - begun, time.process_time() - cpu
    count, size = spool.end - spool.first, spool.size
    await spool.stop()
    source, sink, nothing = StraightSource(), StraightSink(), Nothing()
    spool = SegmentSpool(SpoolOptions(path=directory, max_bytes=1 << 40, reserve=0), nothing)
    uplink = Uplink(
        sink,
        tracer=Tracer(nothing, sampler=ALWAYS_ON),
        metrics=MessageMetrics(None, None),
        reporter=nothing,
        clock=SystemClock(),
        settings=UplinkSettings(gateway="bench"),
        spool=spool,
        boot_ns=SystemClock.boot_ns,
    )
    route = Route(name="r", filter=TopicFilter.parse("devices/{device}/telemetry"), topic=Template.parse("telemetry"))
    uplink.attach(source, [route], Peer("broker", 1883, "bench"))
    await spool.start()
    running = asyncio.create_task(uplink.run())
    await sink.reach(min(count, DRAINED))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await uplink.drain(1)
    await running
    await spool.stop()
    return {
        "messages": count,
        "bytes": size,
        "open_s": round(opened, 3),
        "open_cpu_s": round(opened_cpu, 3),
        "rss_before_mib": round(before / 1024, 1),
        "rss_max_mib": round(peak / 1024, 1),
    }


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--directory", type=Path, default=None, help="where to write; by default a temporary one")
    parser.add_argument("--open", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open is not None:
        json.dump(asyncio.run(backlog(given.open)), sys.stdout)
        return
    with tempfile.TemporaryDirectory(dir=given.directory) as made:
        found: dict[str, Any] = {"size": given.size}
        found |= asyncio.run(outage(Path(made) / "outage", given.messages, given.size))
        if given.backlog:
            left = Path(made) / "backlog"
            left.mkdir()
            fill(left, given.backlog, given.size)
            command = [sys.executable, "-m", "bench.spool", "--open", str(left)]
            found["backlog"] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
