"""Store and forward: the uplink with a spool on disk, and a RocketMQ that the test takes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.core.errors import SinkMisconfigured, SinkUnavailable
from spanbridge.core.message import Publish
from spanbridge.spool.segments import SegmentSpool, SpoolOptions
from spanbridge.spool.versions import DEAD_LETTERS
from spanbridge.telemetry import Peer, Tracer
from spanbridge.uplink import SpillSettings, Uplink, UplinkSettings
from tests.fakes import FakeReporter

from .fakes import FakeClock, FakeDelivery, FakeMetrics, FakeSink, FakeSource, Stored, route

pytestmark = pytest.mark.anyio


class PatientClock(FakeClock):
    """Sleeps take a thousandth of their time, so that the disk can keep up."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds / 1000)
        self.now += int(seconds * 1e9)


class Spans:
    def __init__(self) -> None:
        self.ended: list[bytes] = []

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        self.ended += (b"".join(pieces[at : at + each]) for at in range(0, len(pieces), each))


class Rig:
    """An uplink with a spool. ``away`` says why a batch is not taken, None while all are.

    ``letters`` are options of the store of dead letters, None: there is none.
    """

    def __init__(
        self,
        path: Path,
        *routes: Any,
        options: dict[str, Any] | None = None,
        letters: dict[str, Any] | None = None,
        now: int = 0,
        sink: FakeSink | None = None,
        **spill: Any,
    ) -> None:
        self.source, self.sink, self.clock = FakeSource(), sink or FakeSink(), PatientClock()
        self.clock.now += now
        self.reporter, self.metrics, self.spans = FakeReporter(), FakeMetrics(), Spans()
        self.away: Callable[[list[Stored]], Exception | None] = lambda batch: None
        self.sink.respond = self._respond
        self.spool = SegmentSpool(SpoolOptions(path=path, **({"reserve": 0} | (options or {}))), self.reporter)
        self.rejected: SegmentSpool | None = None
        if letters is not None:
            self.rejected = SegmentSpool(
                SpoolOptions(path=path / DEAD_LETTERS, dead_letters=True, **({"reserve": 0} | letters)), self.reporter
            )
        self.uplink = Uplink(
            self.sink,
            tracer=Tracer(self.spans, sampler=ALWAYS_ON),
            metrics=self.metrics,  # type: ignore[arg-type]
            reporter=self.reporter,
            clock=self.clock,
            settings=UplinkSettings(gateway="gw", rejected_here=letters is not None, spill=SpillSettings(**spill)),
            spool=self.spool,
            rejected=self.rejected,
            boot_ns=self.clock.monotonic_ns,
        )
        self.uplink.attach(self.source, routes or [route("devices/{device}/#")], Peer("broker", 1883, "edge"))
        self.ids = iter(range(1, 100_000))

    def _respond(self, batch: list[Stored]) -> None:
        error = self.away(batch)
        if error is not None:
            raise error

    def go_away(self) -> None:
        self.away = lambda batch: SinkUnavailable("nobody answers")

    def come_back(self) -> None:
        self.away = lambda batch: None

    def publish(self, topic: str, payload: bytes, **fields: Any) -> FakeDelivery:
        fields.setdefault("qos", 1)
        message = Publish(topic, payload, received_ns=self.clock.now_ns(), **fields)
        return FakeDelivery(message, self.source, packet_id=next(self.ids), size=0, now=self.clock.monotonic_ns())

    def send(self, topic: str, *payloads: str, **fields: Any) -> list[FakeDelivery]:
        deliveries = [self.publish(topic, payload.encode(), **fields) for payload in payloads]
        self.source.deliver(deliveries)
        return deliveries

    def bodies(self, topic: str = "out") -> list[str]:
        return [stored.body.decode() for stored in self.sink.stored if stored.topic == topic]

    @property
    def spooled(self) -> int:
        return self.spool.end - self.spool.first

    async def answered(self, deliveries: list[FakeDelivery]) -> None:
        await self.until(lambda: all(one.answered for one in deliveries))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(path: Path, *routes: Any, **settings: Any) -> AsyncIterator[Rig]:
    rig = Rig(path, *routes, **settings)
    await rig.spool.start()
    if rig.rejected is not None:
        await rig.rejected.start()
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.running)
    try:
        yield rig
    finally:
        await rig.uplink.drain(0.2)
        await task
        await rig.spool.stop()
        if rig.rejected is not None:
            await rig.rejected.stop()
    assert "internal.errors" not in rig.reporter.names()


async def test_messages_go_straight_through_and_touch_no_disk_while_rocketmq_takes_them(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.send("devices/a/t", "1", "2")
        await rig.until(lambda: rig.bodies() == ["1", "2"])
        assert rig.spool.end == 0


@pytest.mark.parametrize("hangs", [False, True])
async def test_an_outage_is_acknowledged_from_the_disk_and_drained_in_order(tmp_path: Path, hangs: bool) -> None:
    async with running(tmp_path) as rig:
        if hangs:
            rig.sink.gate.clear()
        else:
            rig.go_away()
        first = rig.send("devices/a/t", "1", "2", "3")
        await rig.until(lambda: all(one.answered for one in first))
        assert rig.bodies() == []
        later = rig.send("devices/a/t", "4", "5")
        await rig.until(lambda: all(one.answered for one in later))
        assert rig.spooled == 5
        rig.sink.gate.set()
        rig.come_back()
        await rig.until(lambda: len(set(rig.bodies())) == 5)
        rig.send("devices/a/t", "6")
        await rig.until(lambda: "6" in rig.bodies())
        await rig.until(lambda: rig.spooled == 0)
        assert list(dict.fromkeys(rig.bodies())) == ["1", "2", "3", "4", "5", "6"]
        written = rig.spool.end
        rig.send("devices/a/t", "7")
        await rig.until(lambda: "7" in rig.bodies())
        assert rig.spool.end == written, "straight through again"


async def test_a_restart_drains_before_anything_live_and_the_trace_goes_on(tmp_path: Path) -> None:
    payloads = [str(number) for number in range(300)]
    async with running(tmp_path) as rig:
        rig.go_away()
        tried: list[Stored] = []
        rig.away = lambda batch: tried.extend(batch) or SinkUnavailable("nobody answers")  # type: ignore[func-returns-value]
        rig.send("devices/a/t", *payloads, user_properties=[("unit", "C")])
        await rig.until(lambda: rig.spooled == 300)
        before = {one.body: one.properties["traceparent"] for one in tried}
    async with running(tmp_path) as rig:
        rig.send("devices/a/t", "live")
        await rig.until(lambda: "live" in rig.bodies())
        assert rig.bodies() == [*payloads, "live"]
        stored = rig.sink.stored[0]
        assert stored.properties["traceparent"] == before[b"0"]
        assert stored.properties["mqtt.user.unit"] == "C"


async def test_a_topic_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    routes = [route("bad/#", "bad"), route("good/#", "good")]
    async with running(tmp_path, *routes) as rig:
        rig.go_away()
        for number in range(100):
            rig.send("bad/t", f"b{number}")
            rig.send("good/t", f"g{number}")
        await rig.until(lambda: rig.spooled == 200)

        def missing(batch: list[Stored]) -> Exception | None:
            return SinkMisconfigured("no such topic", reason="topic_not_found") if batch[0].topic == "bad" else None

        rig.away = missing
        await rig.until(lambda: len(rig.bodies("good")) == 100)
        assert rig.bodies("good") == [f"g{number}" for number in range(100)]
        assert rig.bodies("bad") == []
        rig.send("good/t", "straight")
        await rig.until(lambda: "straight" in rig.bodies("good"))
        rig.come_back()
        await rig.until(lambda: len(rig.bodies("bad")) == 100)
        assert rig.bodies("bad") == [f"b{number}" for number in range(100)]
        await rig.until(lambda: rig.spooled == 0)


async def test_a_route_may_stay_out_of_it(tmp_path: Path) -> None:
    async with running(tmp_path, route("a/#", "out", spool=False)) as rig:
        rig.go_away()
        (delivery,) = rig.send("a/t", "1")
        await rig.until(lambda: sum(rig.clock.slept) > 30)
        assert not delivery.answered
        assert rig.spooled == 0
        rig.come_back()
        await rig.until(lambda: rig.bodies() == ["1"])


async def test_what_expires_in_the_spool_is_dropped_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.go_away()
        rig.send("devices/a/t", "old", expiry=6000)
        rig.send("devices/a/t", *(str(number) for number in range(40)))
        await rig.until(lambda: rig.spooled == 41)
    async with running(tmp_path, now=10**13) as rig:
        await rig.until(lambda: len(rig.bodies()) == 40)
        assert "old" not in rig.bodies()
        assert rig.metrics.counts["dropped", "devices/{device}/#", "expired"] == 1


FULL = {"max_bytes": 40_000, "segment_bytes": 4_000}


async def test_a_full_spool_blocks_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async with running(tmp_path, options=FULL) as rig:
        rig.go_away()
        sent = []
        for number in range(60):
            sent += rig.send("devices/a/t", f"{number:03}" + "x" * 900)
            await asyncio.sleep(0.003)
        await rig.until(lambda: "spool.failures" in rig.reporter.names())
        kept = sum(one.answered for one in sent)
        assert 0 < kept < 60
        rig.come_back()
        await rig.until(lambda: all(one.answered for one in sent))
        await rig.until(lambda: len(set(rig.bodies())) == 60)
        assert [int(body[:3]) for body in dict.fromkeys(rig.bodies())] == list(range(60))


async def test_what_no_disk_takes_goes_on_trying_without_it(tmp_path: Path) -> None:
    async with running(tmp_path, options={"reserve": 1 << 60}) as rig:
        rig.go_away()
        sent = rig.send("devices/a/t", *(f"{number:03}" for number in range(20)))
        await rig.until(lambda: "spool.failures" in rig.reporter.names())
        sent += rig.send("devices/a/t", *(f"{number:03}" for number in range(20, 40)))
        rig.come_back()
        await rig.until(lambda: all(one.answered for one in sent))
        assert (rig.spooled, rig.uplink.in_flight) == (0, 0)
        assert [int(body) for body in dict.fromkeys(rig.bodies())] == list(range(40))


async def test_a_backlog_larger_than_the_spool_goes_through_it_in_parts(tmp_path: Path) -> None:
    async with running(tmp_path, options=FULL) as rig:
        rig.go_away()
        sent = rig.send("devices/a/t", *(f"{number:03}" + "x" * 900 for number in range(100)))
        await rig.until(lambda: "spool.failures" in rig.reporter.names())
        assert any(one.answered for one in sent)
        rig.come_back()
        await rig.until(lambda: len(set(rig.bodies())) == 100)
        assert [int(body[:3]) for body in dict.fromkeys(rig.bodies())] == list(range(100))
        await rig.answered(sent)


@pytest.mark.parametrize("choice", ["drop_newest", "drop_oldest"])
async def test_a_full_spool_drops_what_the_route_says(tmp_path: Path, choice: str) -> None:
    async with running(tmp_path, route("a/#", "out", when_full=choice), options=FULL) as rig:
        rig.go_away()
        sent: list[FakeDelivery] = []
        for number in range(100):
            sent += rig.send("a/t", f"{number:03}" + "x" * 900)
            await rig.answered(sent)
        rig.come_back()
        await rig.until(lambda: rig.spooled == 0)
        found = [int(body[:3]) for body in rig.bodies()]
        assert found == sorted(found)
        assert 10 < len(found) < 100
        assert (99 in found) == (choice == "drop_oldest")
        assert "messages.dropped" in rig.reporter.names()
        assert rig.metrics.counts["dropped", "a/#", "spool_full"] == 100 - len(found)
        (row,) = [row for row in rig.uplink.routes() if row["filter"] == "a/#"]
        assert row["reasons"] == {"spool_full": 100 - len(found)}


async def test_qos_0_has_a_share(tmp_path: Path) -> None:
    async with running(tmp_path, options=FULL, qos0_share=0.1) as rig:
        rig.go_away()
        sent = []
        for number in range(20):
            sent += rig.send("devices/a/t", f"{number:03}" + "x" * 900, qos=0)
        await rig.until(lambda: all(one.answered for one in sent))
        assert rig.spooled == 4
        assert rig.metrics.counts["dropped", "devices/{device}/#", "qos0_share"] == 16
