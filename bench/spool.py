"""What the spool costs: ``python -m bench.spool [--messages N] [--rounds N] [--backlog N] [--size BYTES]``.

The gateway's own pipeline runs in this process, from the bytes of PUBLISH packets to encoded batches, acknowledgements
and encoded spans, between a source and a sink that answer at once. Live, spilling and draining take turns; figures are
medians of the rounds. Prints one JSON object; times are of this machine, and of whatever else runs on it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.app.clock import SystemClock
from spanbridge.app.run import loop_factory, tune_collector
from spanbridge.core import spooled as form
from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkUnavailable
from spanbridge.core.message import Destination, Publish
from spanbridge.core.protobuf import varint
from spanbridge.core.routes import Route, TopicFilter
from spanbridge.core.spooled import Spooled, TraceIds
from spanbridge.core.template import Template
from spanbridge.mqtt.codec import Decoder, Publishes
from spanbridge.mqtt.session import MqttSession
from spanbridge.ports import Deliver, Link, PeerStatus, Released
from spanbridge.rocketmq.grpc.encode import Encoder, MessageHead
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.segments import SegmentSpool, SpoolOptions
from spanbridge.spool.store import Store, StoreLimits
from spanbridge.telemetry import MessageMetrics, Peer, Tracer
from spanbridge.telemetry.otlp.buffer import SpanBuffer
from spanbridge.telemetry.spans.hop import SCHEMA_URL
from spanbridge.telemetry.spans.wire import RequestFrame
from spanbridge.uplink import SpillSettings, Uplink, UplinkSettings

T = TypeVar("T")
WINDOW = 4096
DRAINED = 100_000
"""Messages of the backlog that go on while memory is looked at."""
READ = 128
"""Messages of one read of the socket."""
ROUNDS = 5


class Nothing:
    """Takes events, and keeps none."""

    def report(self, _: object) -> None: ...


class Spans(SpanBuffer):
    """Makes requests of spans as the exporter does, and sends none."""

    def __init__(self) -> None:
        super().__init__(1 << 30, batch_spans=2048, batch_bytes=3 << 20)
        self._frame = RequestFrame({"service.name": "bench"}, "", "spanbridge", "0", SCHEMA_URL)

    def add(self, spans: Sequence[bytes], each: int = 1) -> None:
        super().add(spans, each)
        while self.batch_is_full:
            self._frame.wrap(self.take()[0])


class StraightSource:
    """Decoder and session of an MQTT source, with packets at hand instead of a connection."""

    name = "mqtt"

    def __init__(self) -> None:
        self._session = MqttSession()
        self._session.connected(session_present=False)
        self._decoder = Decoder(self, v5=True, limit=1 << 28)
        self.status = PeerStatus("mqtt", Link.UP, 0, None, {})
        self._deliver: Deliver[Publish]
        self._closed = asyncio.Event()
        self._acked = asyncio.Event()
        self._sent = 0

    @property
    def unacked(self) -> int:
        return self._session.unacked

    @property
    def held(self) -> int:
        return self._session.held

    @property
    def held_bytes(self) -> int:
        return self._session.held_bytes

    async def run(self, deliver: Deliver[Publish], _: Released) -> None:
        self._deliver = deliver
        await self._closed.wait()

    def reads(self, count: int, size: int) -> list[bytes]:
        """What the socket would bring: so many messages."""
        first, self._sent = self._sent, self._sent + count
        numbers = range(first, self._sent)
        return [b"".join(_packet(number, size) for number in numbers[at : at + READ]) for at in range(0, count, READ)]

    async def feed(self, reads: Sequence[bytes]) -> None:
        """Deliver messages, and wait until all are acknowledged."""
        for data in reads:
            while self.unacked > WINDOW - READ:
                self._acked.clear()
                await self._acked.wait()
            for packet in self._decoder.feed(data, time.time_ns(), time.monotonic_ns()):
                assert type(packet) is Publishes
                self._deliver(list(self._session.take(packet)[0]))
            await asyncio.sleep(0)
        while self.unacked:
            self._acked.clear()
            await self._acked.wait()

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        self._session.ack(deliveries)
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


def _packet(number: int, size: int) -> bytes:
    """PUBLISH with QoS 1, without properties."""
    topic = f"devices/d{number % 100:02}/telemetry".encode()
    identifier = number % 65_535 + 1
    body = len(topic).to_bytes(2) + topic + identifier.to_bytes(2) + b"\0" + bytes(size)
    return b"\x32" + varint(len(body)) + body


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
        b"".join(batch)  # as a request would
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


class Outage:
    """Live, spilling and draining with the same pipeline, which take turns."""

    def __init__(self, directory: Path) -> None:
        self.source, self.sink = StraightSource(), StraightSink()
        self.spool = SegmentSpool(SpoolOptions(path=directory, max_bytes=1 << 40, reserve=0), Nothing())
        self.uplink = _uplink(self.source, self.sink, self.spool)

    async def measure(self, rounds: int, messages: int, size: int) -> dict[str, Any]:
        """Run so many rounds; medians of them."""
        await self.spool.start()
        running = asyncio.create_task(self.uplink.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self.source.feed(self.source.reads(messages, size))
        tune_collector()
        found = [await self.round(messages, size) for _ in range(rounds)]
        await self.uplink.drain(1)
        await running
        await self.spool.stop()
        return {
            name: {figure: statistics.median(one[name][figure] for one in found) for figure in found[0][name]}
            for name in found[0]
        }

    async def round(self, messages: int, size: int) -> dict[str, dict[str, float]]:
        """One figure of each."""
        source, sink, found = self.source, self.sink, dict[str, dict[str, float]]()
        reads = source.reads(messages, size)
        watch = Stopwatch()
        await source.feed(reads)
        found["live"] = watch.read(messages)
        sink.away = True
        await source.feed(source.reads(1, size))  # it makes the partition spill
        reads, before = source.reads(messages, size), self.spool.size
        watch = Stopwatch()
        await source.feed(reads)
        found["spilling"] = watch.read(messages)
        written = self.spool.size - before
        found["spilling"]["bytes_per_payload_byte"] = round(written / (messages * size), 4)
        stored, sink.away = sink.stored, False
        await sink.reach(stored + 1)  # the first attempt after the pause
        watch, before = Stopwatch(), sink.stored
        await sink.reach(stored + messages + 1)
        found["draining"] = watch.read(sink.stored - before)
        # Of CPU time, not of rates: what else runs on the machine takes turns between the two.
        found["draining"]["share_of_live"] = round(found["live"]["cpu_us"] / found["draining"]["cpu_us"], 2)
        assert self.uplink.spill is not None
        while not self.uplink.spill.idle:  # noqa: ASYNC110 - what is left is an acknowledgement
            await asyncio.sleep(0.1)
        return found


def _uplink(source: StraightSource, sink: StraightSink, spool: SegmentSpool) -> Uplink:
    uplink = Uplink(
        sink,
        tracer=Tracer(Spans(), sampler=ALWAYS_ON),
        metrics=MessageMetrics(None, None),
        reporter=Nothing(),
        clock=SystemClock(),
        settings=UplinkSettings(gateway="bench", spill=SpillSettings(after=0.5)),
        spool=spool,
        boot_ns=SystemClock.boot_ns,
    )
    route = Route(name="r", filter=TopicFilter.parse("devices/{device}/telemetry"), topic=Template.parse("telemetry"))
    uplink.attach(source, [route], Peer("broker", 1883, "bench"))
    return uplink


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
    source, sink = StraightSource(), StraightSink()
    spool = SegmentSpool(SpoolOptions(path=directory, max_bytes=1 << 40, reserve=0), Nothing())
    uplink = _uplink(source, sink, spool)
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


async def _outage(directory: Path, given: argparse.Namespace) -> dict[str, Any]:
    return await Outage(directory).measure(given.rounds, given.messages, given.size)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the loop that the gateway has."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="messages of a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--directory", type=Path, default=None, help="where to write; by default a temporary one")
    parser.add_argument("--open", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.open is not None:
        json.dump(_run(backlog(given.open)), sys.stdout)
        return
    with tempfile.TemporaryDirectory(dir=given.directory) as made:
        found: dict[str, Any] = {"size": given.size}
        found |= _run(_outage(Path(made) / "outage", given))
        if given.backlog:
            left = Path(made) / "backlog"
            left.mkdir()
            fill(left, given.backlog, given.size)
            command = [sys.executable, "-m", "bench.spool", "--open", str(left)]
            found["backlog"] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
