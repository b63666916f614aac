"""The consumer against proxies that misbehave, on purpose and reproducibly."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest

from spanbridge.ports import Link
from spanbridge.rocketmq.grpc.stubs import service

from .consuming import Taker, consuming
from .fake_proxy import OK, FakeProxy, status

pytestmark = pytest.mark.anyio


def taking(*proxies: FakeProxy, **options: Any) -> AbstractAsyncContextManager[Taker]:
    quick: dict[str, Any] = {
        "heartbeat_interval": 0.1, "route_refresh_interval": 0.05, "backoff_initial": 0.01, "backoff_maximum": 0.05,
        "give_back_timeout": 2.0,
    }  # fmt: skip
    return consuming(";".join(proxy.address for proxy in proxies), "g", "t", **quick | options)


def once(method: str, answer: Any) -> Any:
    """Refuses one request for each answer given, and then no more."""
    left = [answer]
    return lambda called, _: left.pop() if called == method and left else None


async def test_what_a_session_looks_like() -> None:
    async with FakeProxy() as proxy:
        proxy.put(*(b"%d" % n for n in range(40)))
        async with taking(proxy, namespace="space", filter="a || b") as taker:
            await taker.have(40)
            taker.source.ack(taker.deliveries)
            await taker.nothing_held()
            await taker.until(lambda: taker.source.status.link is Link.UP)
        settings = proxy.settings[0]
        (entry,) = settings.subscription.subscriptions
        assert (settings.subscription.group.name, settings.subscription.group.resource_namespace) == ("g", "space")
        assert (entry.topic.name, entry.expression.expression) == ("t", "a || b")
        first = proxy.receives[0]
        assert (first.batch_size, first.message_queue.broker.name) == (32, "broker-0")
        assert first.long_polling_timeout.seconds == 5
        assert first.invisible_duration.seconds == 60
        assert not first.auto_renew
        order = [method for method, _ in proxy.calls]
        assert order.index("Telemetry") < order.index("ReceiveMessage")
        assert [one.receipt_handle for one in proxy.acks] == [f"handle-{n}" for n in range(40)]
        assert proxy.count("AckMessage") < 10, "many in one request"
        assert proxy.calls[-1][0] == "NotifyClientTermination"


async def test_results_of_acknowledgements_are_looked_at_one_by_one() -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        codes = {"handle-1": "INVALID_RECEIPT_HANDLE", "handle-2": "INTERNAL_SERVER_ERROR"}

        def answers(method: str, request: Any) -> Any:
            if method != "AckMessage" or not codes:
                return None
            entries = [
                service.AckMessageResultEntry(
                    message_id=one.message_id,
                    receipt_handle=one.receipt_handle,
                    status=status(codes[one.receipt_handle]) if one.receipt_handle in codes else OK,
                )
                for one in request.entries
            ]
            codes.clear()
            return service.AckMessageResponse(status=status("MULTIPLE_RESULTS"), entries=entries)

        proxy.answers = answers
        proxy.put(b"0", b"1", b"2")
        await taker.have(3)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert [one.receipt_handle for one in proxy.acks] == ["handle-2"], "only what failed is tried again"
        names = taker.recorder.names()
        assert names.count("rocketmq.acks.late") == 1
        assert names.count("rocketmq.acks.retries") == 1


@pytest.mark.parametrize("refusal", [status("INTERNAL_SERVER_ERROR"), grpc.StatusCode.UNAVAILABLE])
async def test_acknowledgements_that_fail_are_tried_again(refusal: Any) -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        proxy.answers = once("AckMessage", refusal)
        proxy.put(b"0", b"1")
        await taker.have(2)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert len(proxy.acks) == 2
        assert {error for _, _, error in taker.acked} == {
            None,
            getattr(refusal, "name", "").lower() or "internal_server_error",
        }


async def test_an_answer_that_breaks_off_is_used_as_far_as_it_came() -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        proxy.breaks_after = 2
        proxy.put(b"0", b"1", b"2")
        await taker.have(2)
        await taker.until(lambda: "rocketmq.receive.failures" in taker.recorder.names())
        proxy.breaks_after = None
        proxy.put(b"2")
        await taker.have(3)
        assert taker.bodies == [b"0", b"1", b"2"]


@pytest.mark.parametrize("fifo", [False, True])
async def test_two_calls_wait_once_messages_come(fifo: bool) -> None:
    proxy = FakeProxy()
    proxy.fifo = fifo
    async with proxy, taking(proxy) as taker:
        await taker.until(lambda: len(proxy.receives) == 1)
        for number in range(3):
            proxy.put(b"%d" % number)
            await taker.have(number + 1)
            asked = number + (2 if fifo else 3)
            await taker.until(lambda asked=asked: len(proxy.receives) == asked)  # type: ignore[misc]


async def test_a_fifo_group_keeps_its_attempt_id_until_an_answer_has_wholly_arrived() -> None:
    proxy = FakeProxy()
    proxy.fifo = True
    async with proxy, taking(proxy) as taker:
        proxy.breaks_after = 1
        proxy.put(b"0", b"1")
        await taker.have(1)
        await taker.until(lambda: len(proxy.receives) >= 2)
        proxy.breaks_after = None
        proxy.put(b"0", b"1")  # the same once more
        await taker.have(2)
        await taker.until(lambda: len(proxy.receives) >= 3)
        ids = [request.attempt_id for request in proxy.receives]
        assert ids[0]
        assert ids[0] == ids[1] != ids[2]
        assert taker.bodies == [b"0", b"1"], "what is in our hands is not handed over twice"
        assert "rocketmq.messages.redelivered" in taker.recorder.names()


async def test_a_message_that_is_too_large_is_told_alone() -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        proxy.put(b"0", b"large", b"1")
        proxy.inbox[1].body = bytes(17 * 1024 * 1024)
        await taker.have(3)
        assert taker.bodies == [b"0", b"", b"1"]
        large = taker.deliveries[1]
        assert large.message.fault == "it is larger than 16777216 bytes"
        taker.source.reject([large], "why")
        taker.source.ack([taker.deliveries[0], taker.deliveries[2]])
        await taker.nothing_held()
        assert [one.receipt_handle for one in proxy.dead] == ["handle-large"]


async def test_answers_for_a_proxy_that_does_not_know_us_have_a_bound() -> None:
    """It is there, and does not answer our settings: handles run out, and what waits for it is let go."""
    async with FakeProxy() as proxy, taking(proxy, invisible=1.0, request_timeout=0.2) as taker:
        proxy.put(b"acked", b"nacked", b"rejected")
        await taker.have(3)
        await taker.until(lambda: taker.source.status.link is Link.UP)
        proxy.silent = True
        reconnect = service.ReconnectEndpointsCommand()
        await proxy.commands.put(service.TelemetryCommand(reconnect_endpoints_command=reconnect))
        await taker.until(lambda: not taker.source.status.detail["telemetry_stream"])
        taker.source.ack(taker.named(b"acked"))
        taker.source.nack(taker.named(b"nacked"), "why")
        taker.source.reject(taker.named(b"rejected"), "why")
        await taker.nothing_held()
        assert {"rocketmq.acks.late", "rocketmq.nacks.failures"} <= set(taker.recorder.names())


async def test_a_redelivery_brings_the_handle_that_acknowledges() -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        proxy.put(b"0")
        await taker.have(1)
        proxy.put(b"0", attempt=2, handle="newer")
        await taker.until(lambda: "rocketmq.messages.redelivered" in taker.recorder.names())
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert [one.receipt_handle for one in proxy.acks] == ["newer"]
        assert len(taker.deliveries) == 1


async def test_handles_are_renewed_and_the_new_one_is_used() -> None:
    async with FakeProxy() as proxy, taking(proxy, invisible=0.5) as taker:
        proxy.put(b"0")
        await taker.have(1)
        await taker.until(lambda: len(proxy.changes) >= 2)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        (ack,) = proxy.acks
        assert ack.receipt_handle == "handle-0" + "+" * len(proxy.changes)


async def test_a_hold_that_is_lost_is_told_and_not_acknowledged() -> None:
    async with FakeProxy() as proxy, taking(proxy, invisible=0.5) as taker:
        proxy.answers = lambda method, request: (
            status("INVALID_RECEIPT_HANDLE")
            if method == "ChangeInvisibleDuration" and not request.receipt_handle.startswith("newer")
            else None
        )
        proxy.put(b"0", b"1")
        await taker.have(2)
        await taker.until(lambda: taker.recorder.names().count("rocketmq.holds.lost") == 2)
        proxy.put(b"1", attempt=2, handle="newer")  # it comes again while in our hands
        await taker.until(lambda: "rocketmq.messages.redelivered" in taker.recorder.names())
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert [one.receipt_handle.rstrip("+") for one in proxy.acks] == ["newer"]
        assert len(taker.deliveries) == 2


async def test_nack_reject_and_give_back_ask_for_what_they_mean() -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        proxy.put(b"later", b"never", b"kept")
        await taker.have(3)
        taker.source.nack(taker.named(b"later"), "why")
        taker.source.reject(taker.named(b"never"), "why")
        await taker.until(lambda: taker.source.held == 1)
        assert [(one.receipt_handle, one.invisible_duration.seconds) for one in proxy.changes] == [("handle-later", 7)]
        assert [one.receipt_handle for one in proxy.dead] == ["handle-never"]
        assert [one.receipt_handle for one in proxy.acks] == ["handle-never"]
        await taker.source.stop_intake()
        await taker.source.give_back()
        assert proxy.changes[-1].receipt_handle == "handle-kept"
        assert proxy.changes[-1].invisible_duration.ToMilliseconds() <= 1
        assert taker.source.held == taker.source.unacked == 0


async def test_a_rejection_that_fails_is_a_nack() -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        proxy.answers = once("ForwardMessageToDeadLetterQueue", status("INTERNAL_SERVER_ERROR"))
        proxy.put(b"0")
        await taker.have(1)
        taker.source.reject(taker.deliveries, "why")
        await taker.nothing_held()
        assert [one.invisible_duration.seconds for one in proxy.changes] == [7]
        assert "rocketmq.dead_letters.failures" in taker.recorder.names()


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (status("TOO_MANY_REQUESTS"), "too_many_requests"),
        (status("ILLEGAL_POLLING_TIME"), "illegal_polling_time"),
        (status("FORBIDDEN"), "forbidden"),
        (grpc.StatusCode.PERMISSION_DENIED, "permission_denied"),
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
    ],
)
async def test_receiving_goes_on_after_refusals(refusal: Any, reason: str) -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        proxy.answers = lambda method, _: refusal if method == "ReceiveMessage" else None
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        assert taker.source.status.last_error
        proxy.answers = lambda method, _: None
        proxy.put(b"0")
        await taker.have(1)
        await taker.until(lambda: taker.source.status.link is Link.UP)
        failures = [event for event in taker.recorder.events if event.name == "rocketmq.receive.failures"]
        assert reason in {event.labels()["reason"] for event in failures}


async def test_a_proxy_that_goes_and_comes_back() -> None:
    proxy = FakeProxy()
    await proxy.start()
    async with taking(proxy) as taker:
        proxy.put(b"0")
        await taker.have(1)
        await proxy.stop()
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        again = FakeProxy(proxy.port)
        async with again:
            again.put(b"1")
            await taker.have(2)
            taker.source.ack(taker.deliveries)
            await taker.nothing_held()
            assert [one.receipt_handle for one in again.acks] == ["handle-0", "handle-1"]


async def test_nobody_there_is_told_in_plain_words() -> None:
    async with consuming("127.0.0.1:1", "g", "t", heartbeat_interval=0.1, backoff_initial=0.01) as taker:
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        await taker.fails_with("connection refused")
    await taker.source.close()
    assert taker.source.status.link is Link.CLOSED


async def test_brokers_come_and_go_with_the_route() -> None:
    async with FakeProxy() as one, FakeProxy() as other, taking(one) as taker:
        one.put(b"0")
        await taker.have(1)
        one.others = [other]
        other.put(b"1")
        await taker.have(2)
        assert set(taker.source.status.detail["brokers"]) == {"broker-0", "broker-1"}
        one.others = []
        await taker.until(lambda: set(taker.source.status.detail["brokers"]) == {"broker-0"})


async def test_what_comes_after_intake_stopped_is_given_back() -> None:
    async with FakeProxy() as proxy, taking(proxy) as taker:
        await taker.until(lambda: proxy.receives)
        await taker.source.stop_intake()
        receives = len(proxy.receives)
        taker.source.take("broker-0", [], 0)  # type: ignore[attr-defined]
        proxy.put(b"0")
        await asyncio.sleep(0.1)
        assert len(proxy.receives) == receives
        assert not taker.deliveries
