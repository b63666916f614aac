"""The uplink's behaviour, with scripted peers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.core import mapping
from spanbridge.core.errors import SinkMisconfigured, SinkRejected, SinkUnavailable
from spanbridge.core.message import Destination, Publish
from spanbridge.core.partition import BatchLimits
from spanbridge.core.policy import Carrier
from spanbridge.core.routes import RouteError
from spanbridge.core.template import Template
from spanbridge.telemetry import Peer, Tracer
from spanbridge.telemetry.spans.recipe import RecordingSpans
from spanbridge.uplink import Uplink, UplinkSettings, recipe
from spanbridge.uplink.events import SendRecovered
from spanbridge.uplink.sender import Sender
from spanbridge_context import TraceContext, inject_json, inject_topic, inject_user_properties, parse_traceparent
from tests.fakes import FakeReporter

from .fakes import FakeClock, FakeDelivery, FakeMetrics, FakeSink, FakeSource, Stored, route

pytestmark = pytest.mark.anyio


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("a bug")


class Spans:
    """Counts the spans that ended."""

    def __init__(self) -> None:
        self.ended = 0

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        self.ended += len(pieces) // each


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

    def publish(self, topic: str = "devices/d1/t", payload: bytes = b"x", **fields: Any) -> FakeDelivery:
        fields.setdefault("qos", 1)
        packet_id, size = fields.pop("packet_id", 0) or next(self.ids), fields.pop("size", 0)
        source = fields.pop("source", self.source)
        message = Publish(topic, payload, received_ns=self.clock.now_ns(), **fields)
        return FakeDelivery(message, source, packet_id=packet_id, size=size, now=self.clock.monotonic_ns())

    def deliver(self, *deliveries: FakeDelivery) -> None:
        self.source.deliver(list(deliveries))

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
    await rig.until(lambda: rig.source.running)
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
        assert rig.source.acked == []
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.acked == [1])
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


async def test_a_payload_without_a_context_leaves_that_of_the_user_properties() -> None:
    context, other = TraceContext.new(), TraceContext.new()
    async with running(route("json", carriers=frozenset({Carrier.JSON_PAYLOAD}))) as rig:
        rig.deliver(
            rig.publish("json", b"{}", user_properties=inject_user_properties([], context)),
            rig.publish("json", b"{}", user_properties=[("traceparent", "nonsense")]),
            rig.publish("json", inject_json(b"{}", other), user_properties=inject_user_properties([], context)),
        )
        await rig.until(lambda: len(rig.sink.stored) == 3)
        found = [parse_traceparent(message.properties["traceparent"]).trace_id for message in rig.sink.stored]
        assert (found[0], found[2]) == (context.trace_id, other.trace_id), "the payload counts before"
        outcomes = {key[1]: count for key, count in rig.metrics.counts.items() if key[0] == "context"}
        assert outcomes.pop("valid") == 2
        assert sum(outcomes.values()) == 1
        assert "absent" not in outcomes


async def test_a_malformed_context_is_dropped_and_counted_and_the_message_goes_on() -> None:
    async with running() as rig:
        rig.deliver(rig.publish(user_properties=[("traceparent", "00-0-0-01")]))
        await rig.until(lambda: bool(rig.sink.stored))
        outcomes = {key[1] for key in rig.metrics.counts if key[0] == "context"}
        assert outcomes.isdisjoint({"valid", "absent"})


async def test_acknowledgements_keep_receive_order_across_partitions() -> None:
    async with running(route("a/{g}", message_group=Template.parse("{g}"))) as rig:
        order: list[str] = []

        def slow_first(batch: list[Stored]) -> None:
            if batch[0].group == "g" and len(order) == 0:
                order.append("failed once")
                raise SinkUnavailable("away")

        rig.sink.respond = slow_first
        rig.deliver(rig.publish("a/g"), rig.publish("a/gg"), rig.publish("a/ggg"))
        await rig.until(lambda: len(rig.source.acked) == 3)
        assert rig.source.acked == [1, 2, 3]


async def test_an_idle_uplink_sends_at_once_and_a_busy_one_fills_batches() -> None:
    async with running(limits=BatchLimits(max_messages=8, concurrency=1)) as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish())
        await rig.until(lambda: len(rig.sink.requests) == 1)
        for _ in range(20):
            rig.deliver(rig.publish())
        rig.sink.gate.set()
        await rig.until(lambda: len(rig.source.acked) == 21)
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
        await rig.until(lambda: rig.source.acked == [1])
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
        await rig.until(lambda: rig.source.acked == [1])
        assert rig.uplink.status()["last_error_age_s"] > 0
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
        await rig.until(lambda: len(rig.source.acked) == 9)
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
        await rig.until(lambda: rig.source.acked == [1])
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
        await rig.until(lambda: rig.source.acked == [1, 2])
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
        assert rig.source.acked == [], "an acknowledgement never overtakes"
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.acked == [1, 2, 3])
        assert sum(count for key, count in rig.metrics.counts.items() if key[0] == "dropped" and key[2] == reason) == 1


async def test_a_property_that_cannot_be_carried_is_counted_and_its_message_goes_on() -> None:
    async with running() as rig:
        rig.deliver(rig.publish(user_properties=[("good", "1"), ("tab", "a\tb"), ("bell", "\a")]))
        await rig.until(lambda: rig.source.acked == [1])
        assert rig.sink.stored[0].properties["mqtt.user.good"] == "1"
        (dropped,) = [event for event in rig.reporter.events if event.name == "properties.dropped"]
        assert dropped.count == 2


async def test_unroutable_messages_go_to_the_catch_all() -> None:
    async with running(unroutable_topic="rest") as rig:
        rig.deliver(rig.publish("elsewhere"))
        await rig.until(lambda: rig.source.acked == [1])
        assert rig.sink.stored[0].topic == "rest"
        assert "messages.diverted" in rig.reporter.names()


async def test_a_route_that_takes_everything_leaves_nothing_to_the_catch_all() -> None:
    async with running(route("#", "all"), unroutable_topic="rest") as rig:
        rig.deliver(rig.publish("elsewhere"))
        await rig.until(lambda: rig.source.acked == [1])
        assert rig.sink.stored[0].topic == "all"
        assert "messages.diverted" not in rig.reporter.names()


async def test_a_message_that_was_here_before_is_not_forwarded_again() -> None:
    async with running() as rig:
        rig.deliver(rig.publish(user_properties=[("spanbridge.path", "other,gw")]))
        await rig.until(lambda: rig.source.acked == [1])
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
        await rig.until(lambda: len(rig.source.acked) == 8)
        assert reading == [False, False] + [True] * 6, "6 of 8 are left when it reads again"
        assert not rig.uplink.paused


@pytest.mark.parametrize("bound", ["max_in_flight", "max_in_flight_bytes"])
async def test_one_source_may_hold_more_than_its_share_while_the_others_hold_little(bound: str) -> None:
    rig = Rig(**{bound: 8})
    other = FakeSource("other")
    rig.uplink.attach(other, [route("other")], Peer("broker", 1884, "edge"))
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.running and other.running)
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
    await rig.until(lambda: rig.source.running and other.running)

    def respond(batch: list[Stored]) -> None:
        if batch[0].topic == "bad" and not rig.source.stopped:
            raise SinkMisconfigured("no such topic")

    rig.sink.respond = respond
    rig.deliver(rig.publish("bad"), *(rig.publish("good") for _ in range(8)))
    assert not rig.source.reading
    assert other.reading
    for number in range(1, 20):
        other.deliver([rig.publish("good", packet_id=number, source=other)])
        await rig.until(lambda number=number: other.acked[-1:] == [number])  # type: ignore[misc]
    assert not rig.source.reading
    rig.sink.gate.clear()
    for number in range(20, 24):
        assert other.reading
        other.deliver([rig.publish("good", packet_id=number, source=other)])
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
        await rig.until(lambda: rig.source.acked == [1, 2, 3])
        assert [message.body for message in rig.sink.stored] == [b"head", b"long"]


async def test_messages_that_expire_while_rocketmq_is_away_are_dropped_on_purpose() -> None:
    async with running() as rig:

        def respond(batch: list[Stored]) -> None:
            if rig.clock.now < 3_000_000_000:
                raise SinkUnavailable("away")

        rig.sink.respond = respond
        rig.deliver(rig.publish(payload=b"short", expiry=1), rig.publish(payload=b"long", expiry=3600))
        await rig.until(lambda: rig.source.acked == [1, 2])
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
        await rig.until(lambda: rig.source.acked == [1])
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
        await rig.until(lambda: rig.source.acked == [1, 2])
        assert rig.metrics.counts["dropped", "devices/{device}/#", "expired"] == 1


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
        await rig.until(lambda: len(rig.source.acked) == 8)
        assert rig.source.acked == list(range(1, 9))
        assert rig.uplink.held == rig.uplink.held_bytes == 0
        await rig.until(lambda: rig.source.reading)


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": b"x" * 5000, "size": 5000},
        {"topic": "nowhere", "user_properties": [("", "")] * 32, "size": 5000},
        {"user_properties": [("", "")] * 129, "topic": "t", "size": 20_000},
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
        assert rig.source.acked == [1, 2, 3, 4, 5]
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
        assert rig.source.acked == []


async def test_a_malformed_packet_is_dropped_by_name_and_acknowledged_in_its_turn() -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(), rig.publish("devices/\\xff", fault="its topic is not UTF-8"))
        assert rig.source.acked == []
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.acked == [1, 2])
        assert rig.metrics.counts["dropped", "(unroutable)", "malformed"] == 1
        assert rig.metrics.counts["processed", "(unroutable)", "malformed"] == 1
        (dropped,) = [event for event in rig.reporter.events if event.name == "messages.dropped"]
        assert "its topic is not UTF-8" in dropped.text()


async def test_a_malformed_packet_goes_to_the_rejected_topic_where_there_is_one() -> None:
    async with running(rejected_topic="dead") as rig:
        rig.deliver(rig.publish("devices/\\xff", payload=b"raw", fault="its topic is not UTF-8"))
        await rig.until(lambda: rig.source.acked == [1])
        (stored,) = rig.sink.stored
        assert (stored.topic, stored.body) == ("dead", b"raw")
        assert stored.properties.pop("traceparent")
        assert stored.properties == {
            "mqtt.topic": "devices/\\xff", "mqtt.qos": "1", "spanbridge.rejected": "malformed",
            "spanbridge.error": "topic 'devices/\\\\xff': its topic is not UTF-8",
        }  # fmt: skip


async def test_a_fault_in_handling_one_message_brings_it_again_and_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(rejected_topic="dead") as rig:
        encode = rig.sink.encode

        def faulty(destination: Any, body: bytes, properties: Any) -> bytes:
            if body == b"bad" and destination.topic != "dead":
                raise RuntimeError("a bug")
            return encode(destination, body, properties)

        monkeypatch.setattr(rig.sink, "encode", faulty)
        rig.deliver(rig.publish(), rig.publish(payload=b"bad"), rig.publish())
        await rig.until(lambda: rig.source.acked == [1, 3])
        assert [number for number, _ in rig.source.nacked] == [2]
        rig.deliver(rig.publish(payload=b"bad", packet_id=4))
        assert [number for number, _ in rig.source.nacked] == [2, 4]
        rig.deliver(rig.publish(payload=b"bad", packet_id=5))  # it will never work, and must not be brought for ever
        await rig.until(lambda: rig.source.acked == [1, 3, 5])
        assert rig.sink.stored[-1].properties["spanbridge.rejected"] == "internal"
        rig.faults = 3


async def test_a_fault_in_diverting_a_message_does_not_stop_the_rest_of_its_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(rejected_topic="dead") as rig:
        head = rig.sink.head

        def faulty(destination: Destination) -> Any:
            if destination.topic == "dead":
                raise RuntimeError("a bug")
            return head(destination)

        def respond(batch: list[Stored]) -> None:
            if any(message.body == b"bad" for message in batch):
                raise SinkRejected("illegal", reason="illegal_property")

        monkeypatch.setattr(rig.sink, "head", faulty)
        rig.sink.respond = respond
        rig.deliver(rig.publish(), rig.publish(payload=b"bad"), rig.publish())
        await rig.until(lambda: rig.source.acked == [1, 2, 3])
        assert len(rig.sink.stored) == 2
        assert rig.metrics.counts["dropped", "devices/{device}/#", "illegal_property"] == 1
        rig.faults = 1


@pytest.mark.parametrize("broken", ["consumed", "context", "requested", "batch", "process_duration", "dropped"])
async def test_metrics_that_fail_stop_no_message(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as rig:
        with monkeypatch.context() as patch:
            patch.setattr(FakeMetrics, broken, fail)
            rig.deliver(rig.publish(), rig.publish("elsewhere"))
            await rig.until(lambda: rig.source.acked == [1, 2])
        assert len(rig.sink.stored) == 1
        rig.faults = rig.reporter.names().count("internal.errors")
        assert rig.faults > 0


@pytest.mark.parametrize("broken", ["requested", "stored"])
async def test_a_tracer_that_fails_stops_no_message(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as rig:
        with monkeypatch.context() as patch:
            patch.setattr(Tracer, broken, fail)
            rig.deliver(rig.publish())
            await rig.until(lambda: rig.source.acked == [1])
        rig.faults = 1


async def test_a_span_that_cannot_begin_leaves_the_message_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    context = TraceContext.new()
    async with running() as rig:
        with monkeypatch.context() as patch:
            patch.setattr(RecordingSpans, "begin", fail)
            rig.deliver(rig.publish(user_properties=inject_user_properties([], context)))
            await rig.until(lambda: rig.source.acked == [1])
        assert rig.sink.stored[0].properties["traceparent"] == context.traceparent
        rig.faults = 1


async def test_a_fault_around_a_batch_gives_it_back_and_the_partition_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(route("a", message_group=Template.parse("one"))) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(Sender, "_stored", fail)
            rig.deliver(rig.publish("a"))
            await rig.until(lambda: [number for number, _ in rig.source.nacked] == [1])
        rig.deliver(rig.publish("a"))
        await rig.until(lambda: rig.source.acked == [2])
        assert len(rig.sink.stored) == 2, "at least once"
        rig.faults = 1


async def test_messages_in_nobodys_hands_are_told_from_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.running)
    rig.sink.gate.clear()
    rig.deliver(rig.publish())
    await rig.until(lambda: bool(rig.sink.requests))
    rig.clock.now += 3600 * 10**9
    assert rig.uplink.stuck() is None, "it waits for RocketMQ"
    rig.sink.gate.set()
    await rig.until(lambda: rig.source.acked == [1])
    monkeypatch.setattr(rig.uplink.sender, "_ack", lambda batch: None)  # a fault that nothing notices
    rig.deliver(rig.publish())
    await rig.until(lambda: len(rig.sink.stored) == 2 and not rig.uplink.sender.requests)
    assert rig.uplink.stuck() is None, "not at once: it may be on its way from one to the other"
    rig.clock.now += 31 * 10**9
    assert "mqtt" in (rig.uplink.stuck() or "")
    assert await rig.uplink.drain(0.01) == 1
    await task


async def test_a_batch_that_failed_is_not_kept_alive() -> None:
    """Without the cyclic collector: errors hold tracebacks, and these the frames and all that they work on."""

    rig = Rig(rejected_topic="dead")
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.running)
    failures = iter([SinkUnavailable("away"), RuntimeError("a bug"), SinkRejected("no", reason="illegal")])

    def respond(batch: list[Stored]) -> None:
        for failure in failures:
            raise failure

    rig.sink.respond = respond
    alive: weakref.WeakSet[FakeDelivery] = weakref.WeakSet()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            delivery = rig.publish()
            alive.add(delivery)
            rig.deliver(delivery)
            del delivery
            await rig.until(lambda: not rig.source.held and not rig.uplink.sender.requests)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not list(alive)
    finally:
        gc.enable()
    assert await rig.uplink.drain(5) == 0
    await task


async def test_a_missing_topic_that_a_device_named_is_rejected_after_a_while_and_the_others_go_on() -> None:
    async with running(route("d/{device}", "t-{device}"), rejected_topic="dead", reject_after=20.0) as rig:

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic == "t-bad":
                raise SinkMisconfigured("no such topic", reason="topic_not_found")

        rig.sink.respond = respond
        rig.deliver(rig.publish("d/bad"), rig.publish("d/good"))
        await rig.until(lambda: rig.source.acked == [1, 2])
        assert sum(rig.clock.slept) >= 20
        assert [message.topic for message in rig.sink.stored] == ["t-good", "dead"]
        assert rig.sink.stored[1].properties["spanbridge.rejected"] == "topic_not_found"
        tries = len(rig.clock.slept)
        rig.deliver(rig.publish("d/bad"))
        await rig.until(lambda: rig.source.acked == [1, 2, 3])
        assert len(rig.clock.slept) == tries, "the topic is known to be missing"


async def test_what_concerns_every_message_is_waited_for_whoever_names_the_topic() -> None:
    async with running(route("d/{device}", "t-{device}"), reject_after=5.0) as rig:
        wrong = [True]

        def respond(batch: list[Stored]) -> None:
            if wrong[0]:
                raise SinkMisconfigured("the access key is wrong", reason="unauthenticated")

        rig.sink.respond = respond
        for number in range(8):
            rig.deliver(rig.publish(f"d/{number}"))
        await rig.until(lambda: sum(rig.clock.slept) > 200)
        assert rig.source.acked == []
        wrong[0] = False
        await rig.until(lambda: len(rig.source.acked) == 8)
        assert len(rig.sink.stored) == 8


async def test_a_topic_without_rights_that_a_device_named_is_rejected_while_others_are_stored() -> None:
    async with running(route("d/{device}", "t-{device}"), reject_after=5.0) as rig:

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic == "t-secret":
                raise SinkMisconfigured("no right to publish", reason="unauthorized")

        rig.sink.respond = respond
        rig.deliver(rig.publish("d/secret"))
        await rig.until(lambda: sum(rig.clock.slept) > 20)
        assert rig.source.acked == []
        rig.deliver(rig.publish("d/open"))
        await rig.until(lambda: rig.source.acked == [1, 2])


async def test_the_rejected_topic_is_waited_for() -> None:
    async with running(route("d/{device}", "t-{device}"), rejected_topic="dead", reject_after=1.0) as rig:
        missing = [True]

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic == "t-bad":
                raise SinkRejected("illegal", reason="illegal_message_tag")
            if missing[0]:
                raise SinkMisconfigured("no such topic", reason="topic_not_found")

        rig.sink.respond = respond
        rig.deliver(rig.publish("d/bad"))
        await rig.until(lambda: sum(rig.clock.slept) > 60)
        assert rig.source.acked == []
        missing[0] = False
        await rig.until(lambda: rig.source.acked == [1])
        assert rig.sink.stored[0].topic == "dead"


async def test_many_missing_topics_do_not_add_up_their_waits() -> None:
    async with running(route("d/{device}", "t-{device}"), reject_after=1000.0) as rig:

        def respond(batch: list[Stored]) -> None:
            raise SinkMisconfigured("no such topic", reason="topic_not_found")

        rig.sink.respond = respond
        for number in range(50):
            rig.deliver(rig.publish(f"d/{number}"))
        await rig.until(lambda: len(rig.source.acked) == 50)
        assert sum(rig.clock.slept) < 1000 * 10


async def test_missing_topics_that_devices_named_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "CACHED", 2)
    async with running(route("d/{device}", "t-{device}"), reject_after=0.0) as rig:

        def respond(batch: list[Stored]) -> None:
            raise SinkMisconfigured("no such topic", reason="topic_not_found")

        rig.sink.respond = respond
        for number in range(50):
            rig.deliver(rig.publish(f"d/{number}"))
            await rig.until(lambda number=number: len(rig.source.acked) > number)  # type: ignore[misc]
        await rig.until(lambda: rig.uplink.sender.requests == 0)
        gc.collect()
        assert len(rig.uplink.sender.failures.hopeless) <= 5


async def test_topics_that_devices_made_up_are_no_peers_that_are_away() -> None:
    """Nobody is to be reminded of them for ever."""
    async with running(route("d/{device}", "t-{device}"), reject_after=5.0) as rig:

        def respond(batch: list[Stored]) -> None:
            raise SinkMisconfigured("no such topic", reason="topic_not_found")

        rig.sink.respond = respond
        rig.deliver(rig.publish("d/1"))
        await rig.until(lambda: rig.source.acked == [1])
        failed = [event for event in rig.reporter.events if event.name == "send.failures"]
        assert failed
        assert {event.outage_key() for event in failed} == {""}


def outages(rig: Rig) -> list[tuple[str, str]]:
    return [(event.phase.value, event.outage_key()) for event in rig.reporter.events if event.outage_key()]


async def test_an_outage_ends_with_the_next_batch_when_the_one_that_met_it_expired() -> None:
    async with running() as rig:
        failures = iter([SinkUnavailable("away")])

        def respond(batch: list[Stored]) -> None:
            for failure in failures:
                rig.clock.now += 1_000_000_000
                raise failure

        rig.sink.respond = respond
        rig.deliver(rig.publish(expiry=1))
        await rig.until(lambda: rig.source.acked == [1])
        assert (outages(rig), rig.sink.stored) == ([("away", "rocketmq")], [])
        rig.deliver(rig.publish())
        await rig.until(lambda: rig.source.acked == [1, 2])
        assert outages(rig) == [("away", "rocketmq"), ("back", "rocketmq")]


async def test_each_peer_that_was_away_is_back_when_a_batch_is_stored() -> None:
    async with running() as rig:
        failures = iter([SinkUnavailable("away"), SinkMisconfigured("no topic yet"), SinkUnavailable("away")])

        def respond(batch: list[Stored]) -> None:
            for failure in failures:
                raise failure

        rig.sink.respond = respond
        rig.deliver(rig.publish())
        await rig.until(lambda: rig.source.acked == [1])
        topic = "rocketmq, topic out"
        assert outages(rig)[:3] == [("away", "rocketmq"), ("away", topic), ("away", "rocketmq")]
        assert sorted(outages(rig)[3:]) == [("back", "rocketmq"), ("back", topic)]


async def test_a_missing_topic_of_the_configuration_is_waited_for() -> None:
    async with running(reject_after=1.0) as rig:
        failures = iter([SinkMisconfigured("no such topic")] * 20)

        def respond(batch: list[Stored]) -> None:
            for failure in failures:
                raise failure

        rig.sink.respond = respond
        rig.deliver(rig.publish())
        await rig.until(lambda: rig.source.acked == [1])
        assert sum(rig.clock.slept) > 5
        assert len(rig.sink.stored) == 1


async def test_a_message_without_the_group_that_its_route_asks_for_is_refused_alone() -> None:
    group = Template.parse("{device}")
    async with running(route("d/{device}/t", message_group=group), rejected_topic="dead") as rig:
        rig.deliver(rig.publish("d//t"), rig.publish("d/1/t"))
        await rig.until(lambda: rig.source.acked == [1, 2])
        rejected = next(message for message in rig.sink.stored if message.topic == "dead")
        assert rejected.properties["spanbridge.rejected"] == "no_message_group"
        assert "d//t" in rejected.properties["spanbridge.error"]
        assert "{device}" in rejected.properties["spanbridge.error"]
        assert rejected.group is None


async def test_a_topic_that_no_property_can_hold_costs_the_property_only() -> None:
    async with running() as rig:
        rig.deliver(rig.publish("devices/a\x01b"), rig.publish("devices/" + "x" * 20_000))
        await rig.until(lambda: rig.source.acked == [1, 2])
        assert len(rig.sink.stored) == 2
        assert not any("mqtt.topic" in message.properties for message in rig.sink.stored)
        assert rig.reporter.names().count("properties.dropped") == 2


async def test_what_is_stored_of_a_batch_that_failed_is_acknowledged_and_not_sent_again() -> None:
    async with running() as rig:
        rig.sink.gate.clear()
        rig.deliver(rig.publish(payload=b"1"))
        rig.deliver(*[rig.publish(payload=body) for body in (b"2", b"3", b"4")])
        failed: list[list[bytes]] = []

        def respond(batch: list[Stored]) -> None:
            if len(batch) == 3 and not failed:
                failed.append([message.body for message in batch])
                error = SinkUnavailable("away")
                error.stored = frozenset({0, 2})
                raise error

        rig.sink.respond = respond
        rig.sink.gate.set()
        await rig.until(lambda: rig.source.acked == [1, 2, 3, 4])
        assert [[message.body for message in request] for request in rig.sink.requests[-1:]] == [[b"3"]]


async def test_a_dead_letter_keeps_as_many_properties_as_rocketmq_takes() -> None:
    async with running(rejected_topic="dead") as rig:

        def respond(batch: list[Stored]) -> None:
            if batch[0].topic != "dead" or len(batch[0].properties) > 128:
                raise SinkRejected("too many", reason="message_properties_too_large")

        rig.sink.respond = respond
        properties = [("spanbridge.path", "other"), *((f"p{n}", "v") for n in range(150))]
        rig.deliver(rig.publish(user_properties=properties, retain=True))
        await rig.until(lambda: rig.source.acked == [1])
        (stored,) = rig.sink.stored
        assert len(stored.properties) == 127, "one is left for what is cut"
        assert "spanbridge.cut" not in stored.properties


@pytest.mark.parametrize("limit", [40, 20, 8])
async def test_a_dead_letter_gets_through_shortened_with_a_note(limit: int) -> None:
    """Servers may have lower limits than those known: properties go first, then the payload."""
    async with running(rejected_topic="dead") as rig:

        def respond(batch: list[Stored]) -> None:
            (message, *others) = batch
            if others or message.topic != "dead":
                raise SinkRejected("too large", reason="message_properties_too_large")
            if len(message.properties) > limit or len(message.body) > 300:
                raise SinkRejected("too large", reason="message_body_too_large")

        rig.sink.respond = respond
        properties = [(f"p{n}", "v") for n in range(30)]
        rig.deliver(rig.publish(payload=b"y" * 900, user_properties=properties))
        await rig.until(lambda: rig.source.acked == [1])
        (stored,) = rig.sink.stored
        assert stored.body == b"y" * len(stored.body)
        assert "900 bytes of payload" in stored.properties["spanbridge.cut"]
        assert stored.properties["mqtt.topic"] == "devices/d1/t"
        assert rig.uplink.routes()[0]["rejected"] == 1


async def test_status_tells_what_became_of_each_routes_messages() -> None:
    async with running(route("a", "ta"), route("b", "tb", name="bees")) as rig:
        rig.deliver(rig.publish("a"), rig.publish("a"), rig.publish("b", payload=b"x" * 2000), rig.publish("c"))
        await rig.until(lambda: len(rig.source.acked) == 4)
        rig.clock.now += 2_000_000_000
        rows = {row["filter"]: row for row in rig.uplink.routes()}
        assert rows["a"] == {
            "source": "mqtt", "name": "a", "filter": "a", "topic": "ta", "received": 2, "sent": 2, "rejected": 0,
            "dropped": 0, "reasons": {}, "rejected_topic": None, "last_s": 2.0,
        }  # fmt: skip
        assert (rows["b"]["name"], rows["b"]["received"], rows["b"]["dropped"]) == ("bees", 1, 1)
        assert (rows["(unroutable)"]["topic"], rows["(unroutable)"]["dropped"]) == (None, 1)
        assert rig.uplink.status()["dropped"] == 2
        rig.deliver(rig.publish("a", user_properties=[("spanbridge.path", "gw")]))
        (row,) = [row for row in rig.uplink.routes() if row["filter"] == "a"]
        assert (row["received"], row["sent"], row["dropped"], row["reasons"]) == (3, 2, 1, {"loop": 1})
        assert rig.metrics.counts["consumed", "a"] == 3
        batches = rig.uplink.batches()
        assert (batches["stored"], batches["messages"], batches["failed"]) == (1, 2, 0)


async def test_a_drain_that_meets_its_deadline_leaves_the_rest_unacknowledged() -> None:
    rig = Rig()
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.running)
    rig.sink.gate.clear()
    rig.deliver(rig.publish())
    await rig.until(lambda: bool(rig.sink.requests))
    assert await rig.uplink.drain(0.01) == 1
    await task
    assert rig.source.acked == []
    assert rig.source.stopped
    assert "drain.incomplete" in rig.reporter.names()


async def test_what_no_broker_has_is_counted_when_the_gateway_stops_with_it() -> None:
    rig = Rig()
    task = asyncio.create_task(rig.uplink.run())
    await rig.until(lambda: rig.source.running)
    rig.sink.gate.clear()
    rig.deliver(rig.publish(), rig.publish(qos=0))
    await rig.until(lambda: bool(rig.sink.requests))
    assert await rig.uplink.drain(0.01) == 1, "the broker has it"
    await task
    assert rig.metrics.counts["dropped", "(unroutable)", "stopping"] == 1, "QoS 0"
    assert (rig.source.acked, rig.sink.stored) == ([], [])


async def test_templates_over_user_properties_are_worked_out_for_each_message() -> None:
    async with running(route("a", topic="t-{user.site|none}")) as rig:
        rig.deliver(
            rig.publish("a", user_properties=[("site", "ulm")]),
            rig.publish("a", user_properties=[("site", "bonn")]),
            rig.publish("a"),
        )
        await rig.until(lambda: len(rig.sink.stored) == 3)
        assert sorted(message.topic for message in rig.sink.stored) == ["t-bonn", "t-none", "t-ulm"]


async def test_recipes_are_made_once_while_their_topics_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "CACHED", 2)
    async with running() as rig:
        rig.deliver(*[rig.publish(f"devices/{name}") for name in "aabacabdda"])
        await rig.until(lambda: len(rig.source.acked) == 10)
        made = [dict(destination.properties)["mqtt.topic"][-1] for destination in rig.sink.heads]
        assert "".join(made) == "abcd", "what is used again and again stays"


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
            "received": 1, "sent": 0, "rejected": 0, "dropped": 0, "requests_in_flight": 1, "in_flight": 1, "held": 1,
            "held_bytes": 1, "oldest_unacknowledged_s": 5.0, "paused": False, "last_error": None,
            "last_error_age_s": None,
        }  # fmt: skip


async def test_other_settings_are_taken_over_with_the_routes() -> None:
    async with running(route("devices/{device}/#", "one"), max_in_flight=2) as rig:
        rig.sink.gate.clear()
        rig.deliver(*[rig.publish() for _ in range(3)])
        assert not rig.source.reading
        settings = UplinkSettings(
            gateway="gw", unroutable_topic="rest", limits=BatchLimits(max_messages=1), max_in_flight=100
        )
        rig.uplink.reroute([route("devices/{device}/#", "two")], settings=settings)
        assert rig.source.reading
        rig.deliver(*[rig.publish() for _ in range(3)], rig.publish("elsewhere"))
        rig.sink.gate.set()
        await rig.until(lambda: len(rig.source.acked) == 7)
        assert sorted(one.topic for one in rig.sink.stored) == ["one"] * 3 + ["rest"] + ["two"] * 3
        assert all(len(batch) == 1 for batch in rig.sink.requests if batch[0].topic == "two")
        settings = UplinkSettings(gateway="gw", rejected_topic="dead")
        rig.uplink.reroute([route("devices/{device}/#", "two")], settings=settings)
        rig.deliver(rig.publish("elsewhere"))
        await rig.until(lambda: len(rig.source.acked) == 8)
        assert rig.sink.stored[-1].topic == "dead"
        assert {row["filter"] for row in rig.uplink.routes()} == {"devices/{device}/#", "#", "(unroutable)"}


async def test_routes_that_contradict_each_other_change_nothing() -> None:
    async with running(route("a", "one")) as rig:
        with pytest.raises(RouteError):
            rig.uplink.reroute([route("a", "two"), route("a", "three")])
        rig.deliver(rig.publish("a"))
        await rig.until(lambda: len(rig.source.acked) == 1)
        assert rig.sink.stored[0].topic == "one"


async def test_sources_come_and_go_while_it_runs() -> None:
    async with running(route("devices/{device}/#")) as rig:
        other = FakeSource("other")
        rig.uplink.attach(other, [route("devices/{device}/#")], Peer("broker", 1884, "edge"), several=True)
        await rig.until(lambda: other.running)
        rig.sink.gate.clear()
        other.deliver([rig.publish(source=other)])
        leaving = asyncio.create_task(rig.uplink.detach(other))
        await rig.until(lambda: other.stopped and bool(rig.sink.requests))
        assert (rig.uplink.in_flight, other.closed.is_set()) == (1, False)
        rig.sink.gate.set()
        await leaving
        assert other.closed.is_set()
        assert len(other.acked) == 1
        assert {row["source"] for row in rig.uplink.routes()} == {"mqtt"}
        assert (rig.uplink.status()["received"], rig.uplink.status()["sent"]) == (1, 1)
        assert rig.sink.stored[0].properties[mapping.SOURCE] == "other"


async def test_without_sources_it_runs_until_it_is_drained() -> None:
    """All messages may go the other way, until a reload brings a route."""
    rig = Rig()
    await rig.uplink.detach(rig.source)
    task = asyncio.create_task(rig.uplink.run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    assert await rig.uplink.drain(5) == 0
    await task
