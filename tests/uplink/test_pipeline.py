"""The uplink's behaviour, with scripted peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.core.batch import BatchLimits
from spanbridge.core.errors import SinkMisconfigured, SinkRejected, SinkUnavailable
from spanbridge.core.message import Address, Publish
from spanbridge.core.policy import Carrier
from spanbridge.core.template import Template
from spanbridge.telemetry import Peer, Tracer
from spanbridge.uplink import Uplink, UplinkSettings, plan
from spanbridge.uplink.events import SendRecovered
from spanbridge_context import TraceContext, inject_json, inject_topic, inject_user_properties, parse_traceparent

from .fakes import FakeClock, FakeMetrics, FakeReporter, FakeSink, FakeSource, Stored, route

pytestmark = pytest.mark.anyio


class Spans:
    """Counts the spans that ended."""

    def __init__(self) -> None:
        self.ended = 0

    def add(self, spans: Any) -> None:
        self.ended += len(spans)


class Rig:
    """An uplink with one source and fakes around it."""

    def __init__(self, *routes: Any, **settings: Any) -> None:
        self.source, self.sink, self.clock = FakeSource(), FakeSink(), FakeClock()
        self.reporter, self.metrics, self.spans = FakeReporter(), FakeMetrics(), Spans()
        self.uplink = Uplink(
            self.sink,
            tracer=Tracer(self.spans, sampler=ALWAYS_ON),
            metrics=self.metrics,  # type: ignore[arg-type]
            reporter=self.reporter,
            clock=self.clock,
            settings=UplinkSettings(gateway="gw", **settings),
        )
        self.uplink.attach(self.source, routes or [route("devices/{device}/#")], Peer("broker", 1883, "edge"))
        self.ids = iter(range(1, 10_000))
        self.faults = 0
        """Internal errors that the test means to provoke."""

    def publish(self, topic: str = "devices/d1/t", payload: bytes = b"x", **fields: Any) -> Publish:
        fields.setdefault("qos", 1)
        fields.setdefault("packet_id", next(self.ids))
        return Publish(topic, payload, epoch=fields.pop("epoch", 1), received_ns=self.clock.now_ns(), **fields)

    def deliver(self, *publishes: Publish) -> None:
        assert self.source.deliver is not None
        self.source.epoch = publishes[0].epoch
        self.source.deliver(list(publishes))

    def at_rest(self) -> None:
        """Nothing is left of what went through, and nothing failed that no test meant to fail."""
        assert (self.uplink.in_flight, self.uplink.held, self.uplink.held_bytes) == (0, 0, 0)
        assert self.uplink.oldest_age() == 0
        assert self.uplink.sender.requests == 0
        assert self.reporter.names().count("internal.errors") == self.faults
        assert self.source.reading

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)


@asynccontextmanager
async def running(*routes: Any, **settings: Any) -> AsyncIterator[Rig]:
    rig = Rig(*routes, **settings)
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.deliver is not None)
    try:
        yield rig
    finally:
        rig.sink.gate.set()
        rig.sink.respond = lambda batch: None
        left = await rig.uplink.drain(5)
        await task
    rig.at_rest()
    assert left == 0


async def test_a_message_goes_through_and_is_acknowledged_after_it_is_stored() -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(user_properties=[("site", "ulm")]))
        await rig.until(lambda: bool(rig.sink.requests))
        assert rig.source.settled == []
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.settled == [1])
        (stored,) = rig.sink.stored
        assert (stored.topic, stored.body) == ("out", b"x")
        assert stored.properties["mqtt.topic"] == "devices/d1/t"
        assert stored.properties["mqtt.user.site"] == "ulm"
        assert stored.properties["spanbridge.path"] == "gw"
        assert rig.spans.ended == 3, "process, send, and the batch's own"
        assert rig.metrics.counts["sent", "out", ""] == 1
        assert rig.metrics.counts["processed", "devices/{device}/#", ""] == 1
        assert rig.reporter.names() == [], "nothing to tell"


async def test_the_context_of_a_v5_device_travels_on_as_child_with_state_and_baggage() -> None:
    context = TraceContext.new().replace(tracestate="vendor=1", baggage="user=7")
    async with running() as rig:
        rig.deliver(rig.publish(user_properties=inject_user_properties([("a", "b")], context)))
        await rig.until(lambda: bool(rig.sink.stored))
        properties = rig.sink.stored[0].properties
        sent = parse_traceparent(properties["traceparent"])
        assert sent.trace_id == context.trace_id
        assert sent.span_id != context.span_id
        assert (properties["tracestate"], properties["baggage"]) == ("vendor=1", "user=7")
        assert "mqtt.user.tp" not in properties
        assert rig.metrics.counts["context", "valid"] == 1


async def test_carriers_of_v311_devices_are_taken_off_before_the_route_sees_them() -> None:
    routes = [
        route("suffix/+", carriers=frozenset({Carrier.TOPIC_SUFFIX})),
        route("json/+", carriers=frozenset({Carrier.JSON_PAYLOAD})),
        route("plain/#"),
    ]
    context = TraceContext.new()
    async with running(*routes) as rig:
        payload = inject_json(b'{"t": 1}', context)
        rig.deliver(
            rig.publish(inject_topic("suffix/a", context)),
            rig.publish("json/a", payload),
            rig.publish(inject_topic("plain/a", context)),
            rig.publish("suffix/b/~tp/" + "A" * 35),
        )
        await rig.until(lambda: len(rig.sink.stored) == 4)
        suffix, json, plain, malformed = rig.sink.stored
        assert suffix.properties["mqtt.topic"] == "suffix/a"
        assert parse_traceparent(suffix.properties["traceparent"]).trace_id == context.trace_id
        assert json.body == b'{"t": 1}'
        assert parse_traceparent(json.properties["traceparent"]).trace_id == context.trace_id
        assert plain.properties["mqtt.topic"] == inject_topic("plain/a", context), "not opted in: left alone"
        assert malformed.properties["mqtt.topic"] == "suffix/b", "no context can stop a message"


async def test_a_malformed_context_is_dropped_and_counted_and_the_message_goes_on() -> None:
    async with running() as rig:
        rig.deliver(rig.publish(user_properties=[("traceparent", "00-0-0-01")]))
        await rig.until(lambda: bool(rig.sink.stored))
        outcomes = {key[1] for key in rig.metrics.counts if key[0] == "context"}
        assert outcomes.isdisjoint({"valid", "absent"})


async def test_acknowledgements_keep_receive_order_across_lanes() -> None:
    async with running(route("a/{g}", message_group=Template.parse("{g}"))) as rig:
        order: list[str] = []

        def slow_first(batch: list[Stored]) -> None:
            if batch[0].group == "g" and len(order) == 0:
                order.append("failed once")
                raise SinkUnavailable("away")

        rig.sink.respond = slow_first
        rig.deliver(rig.publish("a/g"), rig.publish("a/gg"), rig.publish("a/ggg"))
        await rig.until(lambda: len(rig.source.settled) == 3)
        assert rig.source.settled == [1, 2, 3]


async def test_an_idle_uplink_sends_at_once_and_a_busy_one_fills_batches() -> None:
    async with running(limits=BatchLimits(max_messages=8, concurrency=1)) as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish())
        await rig.until(lambda: len(rig.sink.requests) == 1)
        for _ in range(20):
            rig.deliver(rig.publish())
        rig.sink.gate.set()
        await rig.until(lambda: len(rig.source.settled) == 21)
        assert [len(request) for request in rig.sink.requests] == [1, 8, 8, 4]


@pytest.mark.parametrize("error", [SinkUnavailable("refused"), SinkMisconfigured("no topic"), RuntimeError("a bug")])
async def test_whatever_fails_is_tried_again_until_it_is_stored(error: Exception) -> None:
    async with running() as rig:
        failures = iter([error] * 3)

        def respond(batch: list[Stored]) -> None:
            for failure in failures:
                raise failure

        rig.sink.respond = respond
        rig.deliver(rig.publish())
        await rig.until(lambda: rig.source.settled == [1])
        assert len(rig.sink.requests) == 4
        assert len(rig.clock.slept) == 3
        assert rig.reporter.names().count("send.failures") == 3
        assert rig.reporter.names().count("send.recoveries") == 1
        rig.faults = 3 if isinstance(error, RuntimeError) else 0


async def test_attempts_are_measured_one_by_one_and_messages_from_their_arrival() -> None:
    async with running() as rig:
        failures = iter([SinkUnavailable("away"), SinkUnavailable("still away")])

        def respond(batch: list[Stored]) -> None:
            rig.clock.now += 2_000_000_000
            for failure in failures:
                raise failure

        rig.sink.respond = respond
        rig.deliver(rig.publish())
        await rig.until(lambda: len(rig.clock.slept) == 1)
        assert rig.uplink.status()["last_error"] == "away"
        await rig.until(lambda: rig.source.settled == [1])
        assert rig.uplink.status()["last_error"] is None
        whole = pytest.approx(6 + sum(rig.clock.slept))
        assert rig.metrics.seconds == {"operation": [2, 2, 2], "batch": [whole], "process": [whole]}
        assert [event.seconds for event in rig.reporter.events if isinstance(event, SendRecovered)] == [whole]
        assert rig.uplink.batches() == {"stored": 1, "failed": 2, "messages": 1, "stored_ns": 2_000_000_000}


async def test_a_refused_message_in_a_batch_is_found_and_the_others_are_stored_in_order() -> None:
    async with running() as rig:

        def respond(batch: list[Stored]) -> None:
            if any(message.body == b"bad" for message in batch):
                raise SinkRejected("illegal", reason="illegal_property")

        rig.sink.respond = respond
        rig.deliver(*[rig.publish(payload=b"bad" if n == 5 else b"%d" % n) for n in range(9)])
        await rig.until(lambda: len(rig.source.settled) == 9)
        assert [message.body for message in rig.sink.stored] == [b"%d" % n for n in range(9) if n != 5]
        assert rig.metrics.counts["dropped", "devices/{device}/#", "illegal_property"] == 1
        assert "messages.dropped" in rig.reporter.names()


async def test_refused_messages_go_to_the_rejected_topic_where_there_is_one() -> None:
    async with running(rejected_topic="dead") as rig:

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic == "out":
                raise SinkRejected("illegal", reason="illegal_property")

        rig.sink.respond = respond
        rig.deliver(rig.publish(payload=b"one"))
        await rig.until(lambda: rig.source.settled == [1])
        (stored,) = rig.sink.stored
        assert stored.topic == "dead"
        assert stored.properties["spanbridge.rejected"] == "illegal_property"
        assert "dropped" not in {key[0] for key in rig.metrics.counts}


async def test_a_rejected_topic_that_refuses_too_ends_in_a_counted_drop() -> None:
    async with running(rejected_topic="dead") as rig:

        def respond(batch: list[Stored]) -> None:
            raise SinkRejected("never", reason="illegal_property")

        rig.sink.respond = respond
        rig.deliver(rig.publish(payload=b"one"), rig.publish(payload=b"y" * 2000))
        await rig.until(lambda: rig.source.settled == [1, 2])
        dropped = {key[2] for key in rig.metrics.counts if key[0] == "dropped"}
        assert dropped == {"illegal_property", "too_large"}


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("elsewhere", b"x", "unroutable"),
        ("elsewhere/~tp/x", b"x", "unroutable"),
        ("devices/d1/t", b"x" * 2000, "too_large"),
    ],
)
async def test_what_cannot_be_forwarded_is_counted_and_acknowledged_in_order(
    topic: str, payload: bytes, reason: str
) -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(), rig.publish(topic, payload), rig.publish())
        assert rig.source.settled == [], "an acknowledgement never overtakes"
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.settled == [1, 2, 3])
        assert sum(count for key, count in rig.metrics.counts.items() if key[0] == "dropped" and key[2] == reason) == 1


async def test_a_property_that_cannot_be_carried_is_counted_and_its_message_goes_on() -> None:
    async with running() as rig:
        rig.deliver(rig.publish(user_properties=[("good", "1"), ("tab", "a\tb"), ("bell", "\a")]))
        await rig.until(lambda: rig.source.settled == [1])
        assert rig.sink.stored[0].properties["mqtt.user.good"] == "1"
        (dropped,) = [event for event in rig.reporter.events if event.name == "properties.dropped"]
        assert dropped.count == 2


async def test_unroutable_messages_go_to_the_catch_all() -> None:
    async with running(unroutable_topic="rest") as rig:
        rig.deliver(rig.publish("elsewhere"))
        await rig.until(lambda: rig.source.settled == [1])
        assert rig.sink.stored[0].topic == "rest"
        assert "messages.diverted" in rig.reporter.names()


async def test_a_route_that_takes_everything_leaves_nothing_to_the_catch_all() -> None:
    async with running(route("#", "all"), unroutable_topic="rest") as rig:
        rig.deliver(rig.publish("elsewhere"))
        await rig.until(lambda: rig.source.settled == [1])
        assert rig.sink.stored[0].topic == "all"
        assert "messages.diverted" not in rig.reporter.names()


async def test_a_message_that_was_here_before_is_not_forwarded_again() -> None:
    async with running() as rig:
        rig.deliver(rig.publish(user_properties=[("spanbridge.path", "other,gw")]))
        await rig.until(lambda: rig.source.settled == [1])
        assert rig.sink.stored == []
        rig.deliver(rig.publish(user_properties=[("spanbridge.path", "other")]))
        await rig.until(lambda: len(rig.sink.stored) == 1)
        assert rig.sink.stored[0].properties["spanbridge.path"] == "other,gw"
        assert "mqtt.user.spanbridge.path" not in rig.sink.stored[0].properties


async def test_a_rejected_message_keeps_the_gateways_it_passed() -> None:
    async with running(rejected_topic="rejected") as rig:
        rig.deliver(rig.publish(user_properties=[("spanbridge.path", "other,gw")]))
        await rig.until(lambda: len(rig.sink.stored) == 1)
        properties = rig.sink.stored[0].properties
        assert (properties["spanbridge.rejected"], properties["spanbridge.path"]) == ("loop", "other,gw")


@pytest.mark.parametrize("bound", ["max_in_flight", "max_in_flight_bytes"])
async def test_reading_stops_at_the_bound_and_goes_on_when_a_quarter_is_free(bound: str) -> None:
    async with running(limits=BatchLimits(max_messages=1, concurrency=1), **{bound: 8}) as rig:
        reading: list[bool] = []
        rig.sink.respond = lambda batch: reading.append(rig.source.reading)
        rig.sink.gate.clear()
        rig.deliver(*[rig.publish() for _ in range(7)])  # one byte each
        assert (rig.source.reading, rig.uplink.paused) == (True, False)
        rig.deliver(rig.publish())
        assert (rig.source.reading, rig.uplink.paused) == (False, True)
        rig.sink.gate.set()
        await rig.until(lambda: len(rig.source.settled) == 8)
        assert reading == [False, False] + [True] * 6, "6 of 8 are left when it reads again"
        assert not rig.uplink.paused


@pytest.mark.parametrize("bound", ["max_in_flight", "max_in_flight_bytes"])
async def test_one_source_may_hold_more_than_its_share_while_the_others_hold_little(bound: str) -> None:
    rig = Rig(**{bound: 8})
    other = FakeSource("other")
    rig.uplink.attach(other, [route("other")], Peer("broker", 1884, "edge"))
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.deliver is not None and other.deliver is not None)
    rig.sink.gate.clear()
    rig.deliver(*[rig.publish() for _ in range(7)])
    assert (rig.source.reading, other.reading) == (True, True)
    rig.deliver(rig.publish())
    assert (rig.source.reading, other.reading) == (False, True)
    rig.sink.gate.set()
    assert await rig.uplink.drain(5) == 0
    await task
    rig.at_rest()


async def test_a_source_that_is_stuck_does_not_stop_the_others() -> None:
    rig = Rig(route("bad", "bad"), route("good", "good"), max_in_flight=8)
    other = FakeSource("other")
    rig.uplink.attach(other, [route("good", "good")], Peer("broker", 1884, "edge"))
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.deliver is not None and other.deliver is not None)

    def respond(batch: list[Stored]) -> None:
        if batch[0].topic == "bad" and not rig.source.stopped:
            raise SinkMisconfigured("no such topic")

    rig.sink.respond = respond
    rig.deliver(rig.publish("bad"), *(rig.publish("good") for _ in range(8)))
    assert not rig.source.reading
    assert other.reading
    assert other.deliver is not None
    for number in range(1, 20):
        other.deliver([rig.publish("good", packet_id=number)])
        await rig.until(lambda number=number: other.settled[-1:] == [number])  # type: ignore[misc]
    assert not rig.source.reading
    rig.sink.gate.clear()
    for number in range(20, 24):
        assert other.reading
        other.deliver([rig.publish("good", packet_id=number)])
    assert not other.reading, "its share is bounded too"
    rig.sink.gate.set()
    assert await rig.uplink.drain(5) == 0
    await task
    rig.at_rest()
    assert other.reading


async def test_messages_that_expire_behind_a_failing_batch_are_dropped_on_purpose() -> None:
    async with running(limits=BatchLimits(concurrency=1)) as rig:
        failures = iter([SinkUnavailable("away")] * 4)

        def respond(batch: list[Stored]) -> None:
            for failure in failures:
                rig.clock.now += 1_000_000_000
                raise failure

        rig.sink.respond = respond
        rig.deliver(rig.publish(payload=b"head"))
        rig.deliver(rig.publish(payload=b"short", expiry=1), rig.publish(payload=b"long", expiry=3600))
        await rig.until(lambda: rig.source.settled == [1, 2, 3])
        assert [message.body for message in rig.sink.stored] == [b"head", b"long"]


async def test_messages_that_expire_while_rocketmq_is_away_are_dropped_on_purpose() -> None:
    async with running() as rig:

        def respond(batch: list[Stored]) -> None:
            if rig.clock.now < 3_000_000_000:
                raise SinkUnavailable("away")

        rig.sink.respond = respond
        rig.deliver(rig.publish(payload=b"short", expiry=1), rig.publish(payload=b"long", expiry=3600))
        await rig.until(lambda: rig.source.settled == [1, 2])
        assert [message.body for message in rig.sink.stored] == [b"long"]
        assert rig.metrics.counts["dropped", "devices/{device}/#", "expired"] == 1
        assert rig.metrics.counts["processed", "devices/{device}/#", "expired"] == 1


async def test_a_clock_that_is_set_forward_expires_nothing() -> None:
    """A machine without a clock of its own finds the time together with the network, and so with RocketMQ."""
    async with running() as rig:

        def respond(batch: list[Stored]) -> None:
            if not rig.clock.set:
                rig.clock.set = 10**18
                raise SinkUnavailable("no network yet")

        rig.sink.respond = respond
        rig.deliver(rig.publish(expiry=60))
        await rig.until(lambda: rig.source.settled == [1])
        assert len(rig.sink.stored) == 1


@pytest.mark.parametrize(("before", "after"), [(0, 10**18), (10**18, 0)])
async def test_a_clock_that_is_set_makes_no_message_older_or_younger(before: int, after: int) -> None:
    async with running(limits=BatchLimits(concurrency=1)) as rig:
        rig.clock.set = before
        rig.sink.gate.clear()
        rig.deliver(rig.publish())
        await rig.until(lambda: rig.uplink.sender.requests == 1)
        rig.deliver(rig.publish(expiry=3))
        rig.clock.now += 5_000_000_000
        rig.clock.set = after
        assert rig.uplink.oldest_age() == pytest.approx(5)
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.settled == [1, 2])
        assert rig.metrics.counts["dropped", "devices/{device}/#", "expired"] == 1


async def test_a_redelivery_after_a_reconnect_is_not_forwarded_twice() -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(packet_id=7))
        await rig.until(lambda: bool(rig.sink.requests))
        rig.deliver(rig.publish(packet_id=7, dup=True, epoch=2))
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.settled == [7])
        assert len(rig.sink.stored) == 1


async def test_what_is_stored_while_the_connection_is_gone_is_not_forwarded_again_either() -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(packet_id=7))
        await rig.until(lambda: bool(rig.sink.requests))
        rig.source.epoch = 0
        rig.sink.gate.set()
        await rig.until(lambda: rig.uplink.in_flight == 0)
        assert rig.source.settled == [], "nobody there to take it"
        assert rig.uplink.held == 0, "or reading might never go on"
        rig.deliver(rig.publish(packet_id=7, dup=True, epoch=2))
        assert rig.source.settled == [7]
        assert len(rig.sink.stored) == 1


async def test_messages_whose_acknowledgement_waits_count_in_the_bound() -> None:
    """One topic that RocketMQ does not take holds back all acknowledgements: memory must stay bounded."""
    async with running(route("bad", "bad"), route("good", "good"), max_in_flight=8) as rig:

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic == "bad" and rig.source.reading:
                raise SinkMisconfigured("no such topic")

        rig.sink.respond = respond
        rig.deliver(rig.publish("bad"))
        for _ in range(7):
            rig.deliver(rig.publish("good"))
        await rig.until(lambda: len(rig.source.settled) == 8)
        assert rig.source.settled == list(range(1, 9))
        assert rig.uplink.held == rig.uplink.held_bytes == 0
        await rig.until(lambda: rig.source.reading)


async def test_a_new_connection_is_read_although_the_last_one_was_paused() -> None:
    """What only waited for its acknowledgement went with the connection, and nothing that is left may ever settle."""
    async with running(route("bad", "bad"), route("good", "good"), max_in_flight=8) as rig:

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic == "bad":
                raise SinkMisconfigured("no such topic")

        rig.sink.respond = respond
        rig.deliver(rig.publish("bad"), *(rig.publish("good") for _ in range(7)))
        await rig.until(lambda: len(rig.sink.stored) == 7)
        assert rig.uplink.held == 8
        assert not rig.source.reading
        rig.source.epoch = 2
        assert rig.source.connected is not None
        rig.source.connected()
        assert rig.uplink.held == 1
        assert rig.source.reading
        rig.deliver(*(rig.publish(topic, packet_id=n, dup=True, epoch=2) for n, topic in [(1, "bad"), (2, "good")]))
        assert rig.uplink.held == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": b"x" * 5000},
        {"topic": "nowhere", "user_properties": [("", "")] * 32},
        {"user_properties": [("", "")] * 129, "topic": "t"},
    ],
)
async def test_what_is_received_and_not_sent_on_counts_in_the_bound_until_their_turn(fields: dict[str, Any]) -> None:
    """Refused and done with, and still in memory: acknowledgements leave in order, and RocketMQ is away."""
    async with running(route("t"), max_in_flight_bytes=20_000) as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish("t"))
        for _ in range(4):
            rig.deliver(rig.publish(**{"topic": "t", **fields}))
        assert not rig.source.reading
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.reading)
        assert rig.source.settled == [1, 2, 3, 4, 5]
        assert rig.uplink.held_bytes == 0


async def test_qos_0_waits_for_nobody_and_drains_as_well() -> None:
    async with running(route("bad", "bad"), route("good", "good")) as rig:

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic == "bad" and not rig.source.stopped:
                raise SinkMisconfigured("no such topic")

        rig.sink.respond = respond
        rig.deliver(rig.publish("bad", qos=0, packet_id=0))
        rig.deliver(*[rig.publish("good", qos=0, packet_id=0) for _ in range(20)])
        await rig.until(lambda: len(rig.sink.stored) == 20)
        assert rig.uplink.held == 1
        assert await rig.uplink.drain(5) == 0
        assert len(rig.sink.stored) == 21
        assert rig.source.settled == []


async def test_a_malformed_packet_is_dropped_by_name_and_acknowledged_in_its_turn() -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(), rig.publish("devices/\\xff", fault="its topic is not UTF-8"))
        assert rig.source.settled == []
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.settled == [1, 2])
        assert rig.metrics.counts["dropped", "(unroutable)", "malformed"] == 1
        assert rig.metrics.counts["processed", "(unroutable)", "malformed"] == 1
        (dropped,) = [event for event in rig.reporter.events if event.name == "messages.dropped"]
        assert "its topic is not UTF-8" in dropped.text()


async def test_a_malformed_packet_goes_to_the_rejected_topic_where_there_is_one() -> None:
    async with running(rejected_topic="dead") as rig:
        rig.deliver(rig.publish("devices/\\xff", payload=b"raw", fault="its topic is not UTF-8"))
        await rig.until(lambda: rig.source.settled == [1])
        (stored,) = rig.sink.stored
        assert (stored.topic, stored.body) == ("dead", b"raw")
        assert stored.properties.pop("traceparent")
        assert stored.properties == {
            "mqtt.topic": "devices/\\xff", "mqtt.qos": "1", "spanbridge.rejected": "malformed"
        }  # fmt: skip


async def test_a_fault_in_handling_one_message_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(rejected_topic="dead") as rig:
        encode = rig.sink.encode

        def faulty(prepared: Any, body: bytes, *rest: Any) -> bytes:
            if body == b"bad":
                raise RuntimeError("a bug")
            return encode(prepared, body, *rest)

        monkeypatch.setattr(rig.sink, "encode", faulty)
        rig.deliver(rig.publish(), rig.publish(payload=b"bad"), rig.publish())
        await rig.until(lambda: rig.source.settled == [1, 2, 3])
        assert len(rig.sink.stored) == 2
        rig.faults = 2  # on its own way, and on that to the rejected topic


async def test_a_fault_in_diverting_a_message_does_not_stop_the_rest_of_its_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(rejected_topic="dead") as rig:
        prepare = rig.sink.prepare

        def faulty(address: Any) -> Any:
            if address.topic == "dead":
                raise RuntimeError("a bug")
            return prepare(address)

        def respond(batch: list[Stored]) -> None:
            if any(message.body == b"bad" for message in batch):
                raise SinkRejected("illegal", reason="illegal_property")

        monkeypatch.setattr(rig.sink, "prepare", faulty)
        rig.sink.respond = respond
        rig.deliver(rig.publish(), rig.publish(payload=b"bad"), rig.publish())
        await rig.until(lambda: rig.source.settled == [1, 2, 3])
        assert len(rig.sink.stored) == 2
        assert rig.metrics.counts["dropped", "devices/{device}/#", "internal"] == 1
        rig.faults = 1


async def test_a_fault_around_a_batch_leaves_it_unacknowledged_and_the_lane_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(route("a", message_group=Template.parse("one")))
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.deliver is not None)
    with monkeypatch.context() as patch:
        patch.delattr(FakeMetrics, "batch")
        rig.deliver(rig.publish("a"))
        await rig.until(lambda: "internal.errors" in rig.reporter.names())
    rig.deliver(rig.publish("a"))
    await rig.until(lambda: len(rig.sink.stored) == 2)
    assert await rig.uplink.drain(0.01) == 1
    await task
    assert rig.source.settled == [], "the broker keeps both"


async def test_status_tells_what_became_of_each_routes_messages() -> None:
    async with running(route("a", "ta"), route("b", "tb", name="bees")) as rig:
        rig.deliver(rig.publish("a"), rig.publish("a"), rig.publish("b", payload=b"x" * 2000), rig.publish("c"))
        await rig.until(lambda: len(rig.source.settled) == 4)
        rig.clock.now += 2_000_000_000
        rows = {row["filter"]: row for row in rig.uplink.routes()}
        assert rows["a"] == {
            "source": "mqtt", "name": "a", "filter": "a", "topic": "ta", "received": 2, "sent": 2, "dropped": 0,
            "last_s": 2.0,
        }  # fmt: skip
        assert (rows["b"]["name"], rows["b"]["received"], rows["b"]["dropped"]) == ("bees", 1, 1)
        assert (rows["(unroutable)"]["topic"], rows["(unroutable)"]["dropped"]) == (None, 1)
        assert rig.uplink.status()["dropped"] == 2
        batches = rig.uplink.batches()
        assert (batches["stored"], batches["messages"], batches["failed"]) == (1, 2, 0)


async def test_without_the_old_session_both_copies_are_forwarded() -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(packet_id=7))
        await rig.until(lambda: bool(rig.sink.requests))
        rig.source.session = 2
        rig.deliver(rig.publish(packet_id=7, dup=True, epoch=2))
        rig.sink.gate.set()
        await rig.until(lambda: len(rig.sink.stored) == 2)
        await rig.until(lambda: rig.source.settled == [7])


async def test_a_drain_that_meets_its_deadline_leaves_the_rest_unacknowledged() -> None:
    rig = Rig()
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.deliver is not None)
    rig.sink.gate.clear()
    rig.deliver(rig.publish())
    await rig.until(lambda: bool(rig.sink.requests))
    assert await rig.uplink.drain(0.01) == 1
    await task
    assert rig.source.settled == []
    assert rig.source.stopped
    assert "drain.incomplete" in rig.reporter.names()


async def test_what_no_broker_has_is_counted_when_the_gateway_stops_with_it() -> None:
    rig = Rig()
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.deliver is not None)
    rig.sink.gate.clear()
    rig.deliver(rig.publish(), rig.publish(qos=0, packet_id=0))
    rig.source.session = 2
    rig.deliver(rig.publish(epoch=2))
    await rig.until(lambda: bool(rig.sink.requests))
    assert await rig.uplink.drain(0.01) == 1, "of the session that there is"
    await task
    assert rig.metrics.counts["dropped", "devices/{device}/#", "stopping"] == 2, "QoS 0, and of the session before"
    assert (rig.source.settled, rig.sink.stored) == ([], [])


async def test_templates_over_user_properties_are_worked_out_for_each_message() -> None:
    async with running(route("a", topic="t-{user.site|none}")) as rig:
        rig.deliver(
            rig.publish("a", user_properties=[("site", "ulm")]),
            rig.publish("a", user_properties=[("site", "bonn")]),
            rig.publish("a"),
        )
        await rig.until(lambda: len(rig.sink.stored) == 3)
        assert sorted(message.topic for message in rig.sink.stored) == ["t-bonn", "t-none", "t-ulm"]


async def test_topics_are_planned_once_while_they_are_among_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CACHED_TOPICS", 2)
    async with running() as rig:
        planned: list[str] = []
        prepare = rig.sink.prepare

        def noting(address: Address) -> Address:
            planned.append(dict(address.properties)["mqtt.topic"][-1])
            return prepare(address)

        monkeypatch.setattr(rig.sink, "prepare", noting)
        rig.deliver(*[rig.publish(f"devices/{name}") for name in "aabbabcca"])
        await rig.until(lambda: len(rig.source.settled) == 9)
        assert "".join(planned) == "abca"


async def test_messages_of_one_topic_keep_their_own_qos_and_retain() -> None:
    async with running() as rig:
        flags = [(1, False), (1, True), (0, False), (0, True), (2, False), (1, False)]
        rig.deliver(*[rig.publish(qos=qos, retain=retain) for qos, retain in flags])
        await rig.until(lambda: len(rig.sink.stored) == 6)
        found = [(int(m.properties["mqtt.qos"]), "mqtt.retain" in m.properties) for m in rig.sink.stored]
        assert found == flags


async def test_the_age_of_the_oldest_message_is_told() -> None:
    async with running() as rig:
        assert rig.uplink.oldest_age() == 0
        rig.sink.gate.clear()
        rig.deliver(rig.publish())
        await rig.until(lambda: bool(rig.sink.requests))
        rig.clock.now += 5_000_000_000
        assert rig.uplink.oldest_age() == pytest.approx(5)
        rig.clock.set = -10_000_000_000
        assert rig.uplink.oldest_age() == pytest.approx(5), "the clock was set back"
        rig.clock.set = 0
        assert rig.uplink.status() == {
            "received": 1, "sent": 0, "dropped": 0, "requests_in_flight": 1, "in_flight": 1, "held": 1,
            "held_bytes": 1, "oldest_unacknowledged_s": 5.0, "paused": False, "last_error": None,
        }  # fmt: skip
