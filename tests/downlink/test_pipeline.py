"""The downlink's behaviour, with scripted peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.core.downlinks import Away, Downlink
from spanbridge.core.errors import (
    NoSubscribers,
    SinkError,
    SinkMisconfigured,
    SinkRejected,
    SinkThrottled,
    SinkUnavailable,
)
from spanbridge.core.message import Message
from spanbridge.downlink import DownlinkEnds, Downlinks, DownlinkSettings
from spanbridge.downlink.maker import Maker
from spanbridge.telemetry import DownlinkMetrics, Peer, Tracer
from spanbridge.telemetry.metrics.convention import Convention
from spanbridge_context import TraceContext, extract_user_properties
from tests.fakes import FakeReporter

from .fakes import FakePublisher, FakeQueue, FakeTime, QueueDelivery, downlink

pytestmark = pytest.mark.anyio


PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault."""

CONTEXT = TraceContext.new()


class Spans:
    """Counts the spans that ended."""

    def __init__(self) -> None:
        self.ended = 0

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        self.ended += len(pieces) // each


class Rig:
    """A downlink with fakes around it."""

    def __init__(self, made: Downlink, *, v5: bool = True, **settings: Any) -> None:
        self.queue, self.publisher, self.clock, self.events = FakeQueue(), FakePublisher(), FakeTime(), FakeReporter()
        self.spans, self.convention = Spans(), Convention()
        self.downlinks = Downlinks(
            tracer=Tracer(self.spans, sampler=ALWAYS_ON),
            metrics=DownlinkMetrics(self.convention),
            reporter=self.events,
            clock=self.clock,
            settings=DownlinkSettings(**settings),
        )
        self.ends = DownlinkEnds(gateway="gw", cluster=Peer("rmq", 8081), broker=Peer("mqtt", 1883), v5=v5)
        self.downlinks.attach(made, self.queue, self.publisher, self.ends)
        self.ids = iter(range(1, 10_000))
        self.faults = 0
        """Internal errors that the test means to provoke."""

    def message(self, key: str = "d1", body: bytes = b"x", *, size: int = 1, **fields: Any) -> QueueDelivery:
        fields.setdefault("message_id", f"m{next(self.ids)}")
        fields.setdefault("received_ns", self.clock.now_ns())
        fields.setdefault("keys", (key,))
        return QueueDelivery(Message("commands", body, **fields), self.queue, size, self.clock.monotonic_ns())

    def deliver(self, *deliveries: QueueDelivery) -> None:
        self.queue.deliver(deliveries)

    def at_rest(self) -> None:
        """Nothing is left of what went through, and nothing failed that no test meant to fail."""
        (forwarder,) = self.downlinks._forwarders.values()
        assert (self.downlinks.in_flight, self.downlinks.oldest_age(), len(forwarder.under_way)) == (0, 0, 0)
        assert len(forwarder._groups) == len(forwarder.parking) == len(forwarder._ready) == 0
        assert self.events.names().count("internal.errors") == self.faults
        assert self.queue.reading

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0)


@asynccontextmanager
async def running(made: Downlink | None = None, **settings: Any) -> AsyncIterator[Rig]:
    rig = Rig(made or downlink(), **settings)
    task = asyncio.create_task(rig.downlinks.run())
    await rig.until(lambda: rig.queue.running and rig.publisher.running)
    yield rig
    rig.at_rest()
    assert await rig.downlinks.drain(10) == 0
    await task
    assert rig.queue.steps == ["stop_intake", "give_back", "close"]


async def test_a_message_is_acknowledged_after_the_broker_has_it() -> None:
    async with running() as rig:
        rig.deliver(rig.message(body=b"on", properties={"site": "ulm"}))
        (publish,) = rig.publisher.published
        assert (publish.topic, publish.payload, publish.qos, publish.retain) == ("devices/d1/commands", b"on", 1, False)
        assert dict(publish.user_properties)["site"] == "ulm"
        assert dict(publish.user_properties)["spanbridge.path"] == "gw"
        assert rig.queue.acked == []
        rig.publisher.answer()
        assert rig.queue.acked == ["m1"]
        assert rig.spans.ended == 2, "process and send"
        assert rig.events.names() == [], "nothing to tell"
        assert sum(rig.convention.sent.values.values()) == sum(rig.convention.consumed.values.values()) == 1


async def test_all_of_one_receive_call_are_published_and_acknowledged_in_one_call() -> None:
    async with running() as rig:
        rig.deliver(*(rig.message(f"d{number}") for number in range(32)))
        assert rig.publisher.calls == [32]
        rig.publisher.answer()
        assert len(rig.queue.acked) == 32


async def test_the_context_travels_on_as_the_send_spans_child() -> None:
    context = CONTEXT.replace(tracestate="vendor=1", baggage="user=7")
    sent = {"traceparent": context.traceparent, "tracestate": "vendor=1", "baggage": "user=7"}
    async with running() as rig:
        rig.deliver(rig.message(properties=sent))
        rig.publisher.answer()
        user = list(rig.publisher.published[0].user_properties)
        found = extract_user_properties(user).context
        assert found is not None
        assert (found.trace_id, found.tracestate, found.baggage) == (context.trace_id, "vendor=1", "user=7")
        assert found.span_id != context.span_id
        assert [name for name, _ in user] == ["spanbridge.path", "tp", "tracestate", "baggage"]


@pytest.mark.parametrize("away", [Away.WAIT, Away.RETAIN, Away.EXPIRE])
async def test_a_message_that_nobody_subscribes_to_is_the_brokers(away: Away) -> None:
    async with running(downlink(away=away, expiry=60)) as rig:
        rig.deliver(rig.message())
        assert rig.publisher.published[0].retain == (away is Away.RETAIN)
        rig.publisher.answer(NoSubscribers("nobody"))
        assert rig.queue.acked == ["m1"]


async def test_under_retry_it_comes_again() -> None:
    async with running(downlink(away=Away.RETRY)) as rig:
        rig.deliver(rig.message())
        rig.publisher.answer(NoSubscribers("nobody"))
        assert (rig.queue.acked, rig.queue.nacked) == ([], ["m1"])
        assert rig.downlinks.rows()[0]["reasons"] == {"no_matching_subscribers": 1}


@pytest.mark.parametrize(
    "error",
    [SinkThrottled("quota"), SinkMisconfigured("acl"), SinkUnavailable("?")],
    ids=lambda error: str(error.reason),
)
async def test_what_the_broker_cannot_take_now_comes_again(error: SinkError) -> None:
    async with running() as rig:
        rig.deliver(rig.message("d1"), rig.message("d2"))
        rig.publisher.answer(error, 1)
        rig.publisher.answer()
        assert (rig.queue.nacked, rig.queue.acked) == (["m1"], ["m2"])
        assert rig.events.names() == ["downlink.nacked"]


async def test_what_the_broker_never_takes_goes_to_the_dead_letters() -> None:
    async with running() as rig:
        rig.deliver(rig.message())
        rig.publisher.answer(SinkRejected("too large", reason="packet_too_large"))
        assert rig.queue.rejected == ["m1"]
        assert rig.downlinks.rows()[0]["reasons"] == {"packet_too_large": 1}
        assert rig.events.names() == ["downlink.rejected"]


class TestMessageGroups:
    """One message of a group at a time: an earlier one that comes again must not be overtaken."""

    async def test_the_next_one_goes_when_the_broker_has_the_one_before(self) -> None:
        async with running() as rig:
            rig.deliver(*(rig.message(key, group=key) for key in ("a", "a", "b", "a")))
            assert rig.publisher.topics() == ["devices/a/commands", "devices/b/commands"]
            rig.publisher.answer()
            assert rig.publisher.topics()[2:] == ["devices/a/commands"]
            rig.publisher.answer()
            rig.publisher.answer()
            assert rig.queue.acked == ["m1", "m3", "m2", "m4"]

    async def test_a_publisher_that_answers_at_once_is_no_recursion(self) -> None:
        async with running() as rig:
            rig.publisher.at_once = True
            rig.deliver(*(rig.message(group="a") for _ in range(3000)))
            assert rig.queue.acked == [f"m{number}" for number in range(1, 3001)]

    async def test_what_waits_behind_a_nacked_message_is_nacked_behind_it(self) -> None:
        async with running(attempts=0) as rig:
            rig.deliver(*(rig.message(key, group=key) for key in ("a", "b", "a", "a")))
            rig.publisher.answer(SinkUnavailable("unspecified"), 1)
            assert rig.queue.nacked == ["m1", "m3", "m4"]
            rig.publisher.answer()
            assert rig.queue.acked == ["m2"], "other groups go on"
            assert rig.downlinks.rows()[0]["reasons"] == {"unavailable": 1, "order": 2}

    async def test_a_device_that_is_away_is_tried_again_here_while_others_go_on(self) -> None:
        async with running(downlink(away=Away.RETRY)) as rig:
            rig.deliver(rig.message("a", group="a"), rig.message("a", group="a"), rig.message("b", group="b"))
            rig.publisher.answer(NoSubscribers("nobody"), 1)
            rig.publisher.answer()
            assert (rig.queue.acked, rig.queue.nacked, rig.queue.rejected) == (["m3"], [], [])
            await rig.until(lambda: len(rig.clock.sleeping) == 1)
            assert rig.downlinks.rows()[0]["parked"] == 1
            rig.deliver(rig.message("b", group="b"))
            rig.publisher.answer()
            assert rig.queue.acked == ["m3", "m4"]
            rig.clock.pass_(2)
            await rig.until(lambda: bool(rig.publisher.waiting))
            rig.publisher.answer()
            rig.publisher.answer()
            assert rig.queue.acked == ["m3", "m4", "m1", "m2"]

    async def test_after_its_attempts_it_goes_to_the_dead_letters_and_those_behind_go_on(self) -> None:
        async with running(downlink(away=Away.RETRY)) as rig:
            rig.deliver(rig.message("a", group="a"), rig.message("b", group="a"))
            pauses = []
            for _ in range(3):
                rig.publisher.answer(NoSubscribers("nobody"))
                await rig.until(lambda: len(rig.clock.sleeping) == 1)
                pauses += rig.clock.sleeping
                rig.clock.pass_(2)
                await rig.until(lambda: bool(rig.publisher.waiting))
            rig.publisher.answer(NoSubscribers("nobody"))
            assert rig.queue.rejected == ["m1"]
            rig.publisher.answer()
            assert rig.queue.acked == ["m2"]
            assert all(0.2 <= pause <= 2 for pause in pauses)
            assert rig.publisher.topics() == ["devices/a/commands"] * 4 + ["devices/b/commands"]

    async def test_what_holds_for_every_message_sends_none_to_the_dead_letters(self) -> None:
        """Credentials that somebody has to mend: unlike one topic that is forbidden, nothing goes at all."""
        async with running(attempts=1) as rig:
            rig.deliver(rig.message("a", group="a"), rig.message("a", group="a"))
            rig.publisher.answer(SinkMisconfigured("not authorised"))
            await rig.until(lambda: len(rig.clock.sleeping) == 1)
            rig.clock.pass_(2)
            await rig.until(lambda: bool(rig.publisher.waiting))
            rig.publisher.answer(SinkMisconfigured("not authorised"))
            assert (rig.queue.nacked, rig.queue.rejected) == (["m1", "m2"], [])

    async def test_a_forbidden_topic_is_its_devices_reason_when_others_are_taken(self) -> None:
        async with running(attempts=1) as rig:
            rig.deliver(rig.message("a", group="a"), rig.message("b", group="b"))
            rig.publisher.answer(SinkMisconfigured("not authorised", reason="not_authorized"), 1)
            await rig.until(lambda: len(rig.clock.sleeping) == 1)
            rig.clock.pass_(2)
            await rig.until(lambda: len(rig.publisher.waiting) == 2)
            rig.publisher.answer(None, 1)
            rig.publisher.answer(SinkMisconfigured("not authorised", reason="not_authorized"))
            assert (rig.queue.acked, rig.queue.rejected) == (["m2"], ["m1"])

    async def test_a_rejected_message_makes_way_for_those_behind(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message(group="a"), rig.message(group="a"))
            rig.publisher.answer(SinkRejected("no"))
            rig.publisher.answer()
            assert (rig.queue.rejected, rig.queue.acked) == (["m1"], ["m2"])

    async def test_a_fault_of_ours_holds_back_later_ones_of_its_group(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make = Maker.make

        def fail(maker: Maker, delivery: Any) -> Any:
            if delivery.message.message_id == "m1":
                raise RuntimeError("a bug")
            return make(maker, delivery)

        monkeypatch.setattr(Maker, "make", fail)
        async with running() as rig:
            rig.faults = 1
            rig.deliver(rig.message(group="a"), rig.message(group="a"), rig.message(group="b"))
            rig.publisher.answer()
            assert (rig.queue.nacked, rig.queue.acked) == (["m1", "m2"], ["m3"])


OUTCOMES: list[SinkError | None] = [None, NoSubscribers("nobody"), SinkUnavailable("away"), SinkRejected("no")]


@PATIENT
@given(
    st.lists(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=8), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(OUTCOMES), st.integers(1, 5)), max_size=30),
)
def test_no_message_overtakes_another_of_its_group_and_each_is_answered_once(
    reads: list[list[str | None]], answers: list[tuple[SinkError | None, int]]
) -> None:
    rig = Rig(downlink(away=Away.RETRY), attempts=0)
    forwarder = rig.downlinks._forwarders["commands"]
    groups: dict[str, str | None] = {}
    turns = iter(answers)
    for read in reads:
        deliveries = [rig.message(group=group) for group in read]
        groups |= {one.id: one.message.group for one in deliveries}
        rig.queue.open.update(dict.fromkeys(deliveries))
        forwarder.deliver(list(deliveries))
        rig.publisher.answer(*next(turns, (None, 1)))
    for error, count in turns:
        rig.publisher.answer(error, count)
    while rig.publisher.waiting:
        rig.publisher.answer()
    rig.at_rest()
    queue = rig.queue
    assert sorted(queue.acked + queue.nacked + queue.rejected) == sorted(groups)
    for group in ("a", "b", "c"):
        mine = [int(one[1:]) for one in queue.acked if groups[one] == group]
        assert mine == sorted(mine)


class TestRefused:
    async def test_a_message_without_an_mqtt_topic_goes_to_the_dead_letters_alone(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message("a+b"), rig.message(keys=()), rig.message("d3"), rig.message(fault="bad digest"))
            rig.publisher.answer()
            assert (rig.queue.rejected, rig.queue.acked) == (["m1", "m2", "m4"], ["m3"])
            assert rig.downlinks.rows()[0]["reasons"] == {"bad_topic": 1, "no_topic": 1, "malformed": 1}

    async def test_what_nobody_wants_any_more_is_dropped(self) -> None:
        async with running() as rig:
            rig.clock.now += 100_000_000_000
            old: dict[str, Any] = {"properties": {"mqtt.expiry": "60"}, "born_ns": 1}
            rig.deliver(rig.message(**old), rig.message())
            rig.publisher.answer()
            assert rig.queue.acked == ["m1", "m2"]
            row = rig.downlinks.rows()[0]
            assert (row["dropped"], row["published"], row["reasons"]) == (1, 1, {"expired": 1})

    async def test_what_expires_while_it_waits_behind_another_is_dropped(self) -> None:
        async with running() as rig:
            lasting: dict[str, Any] = {"group": "a", "properties": {"mqtt.expiry": "10"}}
            rig.deliver(rig.message(group="a"), rig.message(**lasting), rig.message(group="a"))
            rig.clock.pass_(11)
            rig.publisher.answer()
            rig.publisher.answer()
            assert rig.queue.acked == ["m1", "m2", "m3"]
            assert len(rig.publisher.published) == 2
            assert rig.downlinks.rows()[0]["reasons"] == {"expired": 1}

    async def test_what_expires_while_the_mqtt_broker_is_away_is_dropped_too(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message(group="a"), rig.message(group="a"))
            rig.publisher.answer(SinkRejected("expired before it could be sent", reason="expired"), 1)
            rig.publisher.answer()
            assert (rig.queue.acked, rig.queue.rejected) == (["m1", "m2"], [])
            row = rig.downlinks.rows()[0]
            assert (row["dropped"], row["rejected"], row["reasons"]) == (1, 0, {"expired": 1})

    async def test_the_expiry_is_what_is_left_when_it_is_written(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message(properties={"mqtt.expiry": "60"}))
            ((outbound, _),) = rig.publisher.waiting
            assert outbound.publish.expiry == 60
            rig.clock.pass_(9.5)
            rig.clock.set += 10**15  # Unix time is set: that makes no message older
            assert outbound.publish.expiry == 51
            rig.clock.pass_(100)
            assert outbound.publish.expiry == 0
            rig.publisher.answer()

    async def test_a_fault_of_ours_nacks_twice_and_rejects_the_third_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Maker, "make", fail)
        async with running() as rig:
            rig.faults = 3
            for _ in range(3):
                rig.deliver(rig.message(message_id="same"))
            assert (rig.queue.nacked, rig.queue.rejected) == (["same", "same"], ["same"])
            assert rig.downlinks.rows()[0]["reasons"] == {"internal": 3}

    async def test_a_publisher_that_fails_loses_no_message(self) -> None:
        async with running() as rig:
            rig.faults = 1
            rig.publisher.failing = RuntimeError("a bug")
            rig.deliver(rig.message(), rig.message(group="a"), rig.message(group="a"))
            assert rig.queue.nacked == ["m1", "m2", "m3"]

    async def test_telemetry_that_fails_stops_no_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("a bug")

        for name in ("stored", "describe"):
            monkeypatch.setattr(Tracer, name, fail)
        monkeypatch.setattr(DownlinkMetrics, "consumed", fail)
        async with running() as rig:
            rig.faults = 3
            rig.deliver(rig.message())
            rig.publisher.answer()
            assert rig.queue.acked == ["m1"]


class TestBounds:
    async def test_as_much_is_held_as_may_be(self) -> None:
        async with running(max_in_flight=4) as rig:
            rig.deliver(*(rig.message(f"d{number}") for number in range(4)))
            assert not rig.queue.reading
            assert rig.downlinks.paused
            rig.publisher.answer(None, 1)
            assert rig.queue.reading
            rig.publisher.answer()

    async def test_in_bytes_too(self) -> None:
        async with running(max_in_flight_bytes=100) as rig:
            rig.deliver(rig.message(size=60), rig.message(size=60))
            assert not rig.queue.reading
            rig.publisher.answer(None, 1)
            assert rig.queue.reading
            rig.publisher.answer()

    async def test_a_queue_of_refused_messages_is_read_on(self) -> None:
        async with running(max_in_flight=4) as rig:
            rig.deliver(*(rig.message("+") for number in range(4)))
            assert rig.queue.reading


class TestStopping:
    async def test_what_is_unanswered_at_the_deadline_is_given_back(self) -> None:
        rig = Rig(downlink(away=Away.RETRY))
        task = asyncio.create_task(rig.downlinks.run())
        await rig.until(lambda: rig.queue.running)
        rig.deliver(rig.message("a", group="a"), rig.message("a", group="a"), rig.message("b"), rig.message("c"))
        rig.publisher.answer(NoSubscribers("nobody"), 1)
        rig.publisher.answer(None, 1)
        assert await rig.downlinks.drain(0) == 3
        await task
        assert (rig.queue.acked, rig.queue.given_back, rig.queue.nacked) == (["m3"], ["m1", "m2", "m4"], [])
        assert rig.queue.steps == ["stop_intake", "give_back", "close"]
        assert rig.events.names() == ["downlink.parked", "downlink.incomplete"]

    async def test_answers_that_come_before_the_deadline_are_taken(self) -> None:
        rig = Rig(downlink())
        task = asyncio.create_task(rig.downlinks.run())
        await rig.until(lambda: rig.queue.running)
        rig.deliver(rig.message(group="a"), rig.message(group="a"))
        drained = asyncio.create_task(rig.downlinks.drain(60))
        await rig.until(lambda: bool(rig.queue.steps))
        rig.publisher.answer()
        rig.publisher.answer()
        assert await drained == 0
        await task
        assert (rig.queue.acked, rig.queue.given_back) == (["m1", "m2"], [])

    async def test_downlinks_come_and_go_while_others_run(self) -> None:
        async with running() as rig:
            queue, other = FakeQueue("second"), downlink(name="second")
            rig.downlinks.attach(other, queue, rig.publisher, rig.ends)
            await rig.until(lambda: queue.running)
            queue.deliver([QueueDelivery(Message("t", b"", keys=("k",)), queue, 1, rig.clock.monotonic_ns())])
            leaving = asyncio.create_task(rig.downlinks.detach("second", 30))
            await rig.until(lambda: queue.steps == ["stop_intake"])
            rig.publisher.answer()
            await leaving
            assert (queue.steps, queue.given_back) == (["stop_intake", "give_back", "close"], [])
            assert not rig.publisher.closed.is_set(), "another downlink uses it"
            assert [row["name"] for row in rig.downlinks.rows()] == ["commands"]
            totals = rig.downlinks.status()
            assert (totals["received"], totals["published"]) == (1, 1), "totals never fall"
            with pytest.raises(ValueError, match="already"):
                rig.downlinks.attach(downlink(), queue, rig.publisher, rig.ends)

    async def test_a_downlink_that_cannot_finish_gives_back_and_leaves(self) -> None:
        async with running() as rig:
            queue, other = FakeQueue("second"), downlink(name="second")
            rig.downlinks.attach(other, queue, rig.publisher, rig.ends)
            await rig.until(lambda: queue.running)
            queue.deliver([QueueDelivery(Message("t", b"", keys=("k",)), queue, 1, rig.clock.monotonic_ns())])
            await rig.downlinks.detach("second", 0)
            assert len(queue.given_back) == 1
            assert [row["name"] for row in rig.downlinks.rows()] == ["commands"]

    async def test_other_settings_hold_from_the_next_message_on(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message("a"))
            rig.downlinks.use([downlink("other/{key}")])
            rig.deliver(rig.message("a"))
            assert rig.publisher.topics() == ["devices/a/commands", "other/a"]
            rig.publisher.answer()


class TestStatus:
    async def test_what_is_shown(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message(), rig.message())
            rig.clock.pass_(1.5)
            rig.publisher.answer(None, 1)
            assert rig.downlinks.status() == {
                "received": 2,
                "published": 1,
                "rejected": 0,
                "dropped": 0,
                "nacked": 0,
                "in_flight": 1,
                "oldest_unacknowledged_s": 1.5,
                "paused": False,
            }
            assert rig.downlinks.readings() == [("commands", 1, 1.5, False)]
            row = rig.downlinks.rows()[0]
            assert (row["topic"], row["group"], row["broker"]) == ("commands", "gw", "plant")
            assert (row["publish"], row["last_s"]) == ("devices/{key}/commands", 1.5)
            rig.publisher.answer()

    async def test_a_message_that_the_publisher_forgot_is_told_after_a_while(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message())
            assert rig.downlinks.stuck() is None
            forgotten, rig.publisher.waiting = rig.publisher.waiting, []
            assert rig.downlinks.stuck() is None
            rig.clock.pass_(31)
            assert "downlink 'commands' wait for an answer" in (rig.downlinks.stuck() or "")
            rig.publisher.waiting = forgotten
            assert rig.downlinks.stuck() is None
            rig.publisher.answer()

    async def test_a_message_that_nobody_works_on_is_told_after_a_while(self) -> None:
        async with running() as rig:
            lost = rig.message()
            rig.queue.open[lost] = None
            assert rig.downlinks.stuck() is None
            rig.clock.pass_(31)
            assert "are in nobody's hands" in (rig.downlinks.stuck() or "")
            rig.queue.open.clear()

    async def test_a_message_that_waits_for_the_broker_is_not_stuck(self) -> None:
        async with running() as rig:
            rig.deliver(rig.message(group="a"), rig.message(group="a"))
            assert rig.downlinks.stuck() is None
            rig.clock.pass_(1000)
            assert rig.downlinks.stuck() is None
            rig.publisher.answer()
            rig.publisher.answer()
