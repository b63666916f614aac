"""The consumer by remoting against brokers that misbehave, on purpose and reproducibly."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from spanbridge.ports import Link
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import AclKeys, Frame, signed

from .fake_pop import FakePopBroker, popping

pytestmark = pytest.mark.anyio

ACK, BATCH, HIDE = RequestCode.ACK_MESSAGE, RequestCode.BATCH_ACK_MESSAGE, RequestCode.CHANGE_MESSAGE_INVISIBLETIME


def refuse(code: int, remark: str = "", times: int = 1) -> Callable[[Frame], Frame | None]:
    """So many refusals; then success without a word."""
    left = [code] * times
    return lambda request: request.response(left.pop() if left else 0, remark=remark)


async def test_what_a_session_looks_like() -> None:
    broker = FakePopBroker("broker-a")
    broker.put(*(b"%d" % number for number in range(40)))
    async with popping(broker, namespace="space", filter="a || b") as (taker, _):
        broker.put(b"never")
        await taker.until(lambda: broker.acked() == list(range(41)))
        assert not taker.deliveries, "they have none of the tags"
        broker.put(b"x", b"y", tag="a")
        await taker.have(2)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        await taker.until(lambda: taker.source.status.link is Link.UP)
        assert taker.source.status.detail["receives_by"] == "pop"
    first = broker.of(RequestCode.POP_MESSAGE)[0].fields
    assert (first["consumerGroup"], first["topic"], first["exp"]) == ("space%g", "space%t", "a || b")
    assert (first["order"], first["maxMsgNums"], first["pollTime"]) == ("false", "32", "5000")
    (living,) = {frame.body for frame in broker.of(RequestCode.HEART_BEAT)}
    (group,) = json.loads(living)["consumerDataSet"]
    assert (group["groupName"], group["consumeType"]) == ("space%g", "CONSUME_POP")
    assert group["subscriptionDataSet"][0]["tagsSet"] == ["a", "b"]
    assert len(broker.of(BATCH)) < 10, "many in one request"
    assert broker.asked[-1].code == RequestCode.UNREGISTER_CLIENT


async def test_two_requests_wait_once_messages_come() -> None:
    broker = FakePopBroker("broker-a")
    async with popping(broker) as (taker, _):
        await taker.until(lambda: len(broker.of(RequestCode.POP_MESSAGE)) == 1)
        for number in range(3):
            broker.put(b"%d" % number)
            await taker.have(number + 1)
            asked = number + 3
            await taker.until(lambda asked=asked: len(broker.of(RequestCode.POP_MESSAGE)) == asked)  # type: ignore[misc]


@pytest.mark.parametrize(("code", "times"), [(ResponseCode.SYSTEM_ERROR, 1), (ResponseCode.SYSTEM_BUSY, 2)])
async def test_acknowledgements_that_fail_are_tried_again(code: ResponseCode, times: int) -> None:
    broker = FakePopBroker("broker-a")
    broker.refuses[BATCH] = refuse(code, times=times)
    async with popping(broker) as (taker, _):
        broker.put(b"0", b"1")
        await taker.have(2)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert "rocketmq.acks.retries" in taker.recorder.names()
        assert taker.acked[-1] == ("t", 2, None)


@pytest.mark.parametrize("code", [ResponseCode.REQUEST_CODE_NOT_SUPPORTED, ResponseCode.NO_PERMISSION])
async def test_a_broker_without_batches_has_acknowledgements_one_by_one(code: ResponseCode) -> None:
    broker = FakePopBroker("broker-a")
    broker.refuses[BATCH] = refuse(code, times=9)
    async with popping(broker) as (taker, _):
        broker.put(b"0", b"1", b"2")
        await taker.have(3)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert [int(frame.fields["offset"]) for frame in broker.of(ACK)] == [0, 1, 2]
        assert len(broker.of(BATCH)) == 1


async def test_the_one_of_a_batch_that_is_not_known_is_told_late() -> None:
    """A queue in order has gone past it."""
    broker = FakePopBroker("broker-a")
    broker.refuses[BATCH] = refuse(ResponseCode.MESSAGE_ILLEGAL, "offset is illegal", times=2)
    broker.refuses[ACK] = refuse(ResponseCode.MESSAGE_ILLEGAL, "offset is illegal", times=1)
    async with popping(broker) as (taker, _):
        broker.put(b"0", b"1", b"2")
        await taker.have(3)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert taker.recorder.names().count("rocketmq.acks.late") == 1


async def test_messages_are_renewed_and_answered_by_what_is_new() -> None:
    broker = FakePopBroker("broker-a")
    async with popping(broker, invisible=0.6) as (taker, _):
        broker.put(b"0")
        await taker.have(1)
        await taker.until(lambda: len(broker.of(HIDE)) >= 2)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert broker.of(ACK)[0].fields["extraInfo"].startswith("0 5000 600 1 0 broker-a 0 0")


async def test_a_hold_that_is_lost_is_told_and_not_acknowledged() -> None:
    broker = FakePopBroker("broker-a")
    broker.refuses[HIDE] = refuse(ResponseCode.NO_MESSAGE, times=99)
    async with popping(broker, invisible=0.6) as (taker, _):
        broker.put(b"0")
        await taker.have(1)
        await taker.until(lambda: "rocketmq.holds.lost" in taker.recorder.names())
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert "rocketmq.acks.late" in taker.recorder.names()
        assert not broker.acked()


async def test_what_comes_too_late_is_not_acknowledged() -> None:
    """A broker would take it, and ignore it."""
    broker = FakePopBroker("broker-a")
    broker.refuses[HIDE] = refuse(ResponseCode.SYSTEM_ERROR, times=99)
    async with popping(broker, invisible=0.3) as (taker, _):
        broker.put(b"0")
        (delivery,) = await taker.have(1)
        await taker.until(lambda: delivery.lost)  # type: ignore[attr-defined]
        taker.source.ack([delivery])
        await taker.nothing_held()
        assert not broker.acked()


async def test_a_redelivery_is_answered_by_what_it_brought() -> None:
    broker = FakePopBroker("broker-a")
    async with popping(broker) as (taker, _):
        broker.put(b"0")
        await taker.have(1)
        broker.put(b"0", attempts=1)
        await taker.until(lambda: "rocketmq.messages.redelivered" in taker.recorder.names())
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        assert (len(taker.deliveries), broker.acked()) == (1, [1])


async def test_nack_reject_and_give_back_ask_for_what_they_mean() -> None:
    broker = FakePopBroker("broker-a")
    async with popping(broker) as (taker, _):
        broker.put(b"later", b"never", b"kept")
        await taker.have(3)
        taker.source.nack(taker.named(b"later"), "why")
        taker.source.reject(taker.named(b"never"), "why")
        await taker.until(lambda: taker.source.held == 1)
        assert [(one.fields["offset"], one.fields["invisibleTime"]) for one in broker.of(HIDE)] == [("0", "7000")]
        (back,) = broker.of(RequestCode.CONSUMER_SEND_MSG_BACK)
        assert (back.fields["offset"], back.fields["delayLevel"], back.fields["group"]) == ("1001", "-1", "g")
        assert broker.acked() == [1]
        await taker.source.stop_intake()
        await taker.source.give_back()
        assert [one.fields["invisibleTime"] for one in broker.of(HIDE)] == ["7000", "1"]
        assert taker.source.held == taker.source.unacked == 0


async def test_a_rejection_that_fails_is_a_nack() -> None:
    broker = FakePopBroker("broker-a")
    broker.refuses[RequestCode.CONSUMER_SEND_MSG_BACK] = refuse(ResponseCode.SYSTEM_ERROR)
    async with popping(broker) as (taker, _):
        broker.put(b"0")
        await taker.have(1)
        taker.source.reject(taker.deliveries, "why")
        await taker.nothing_held()
        assert [one.fields["invisibleTime"] for one in broker.of(HIDE)] == ["7000"]
        assert "rocketmq.dead_letters.failures" in taker.recorder.names()


async def test_what_was_delivered_often_enough_is_a_dead_letter() -> None:
    broker = FakePopBroker("broker-a")
    async with popping(broker) as (taker, _):
        broker.put(b"worn", attempts=4)
        broker.put(b"last", attempts=3)
        await taker.have(1)
        assert (taker.bodies, taker.deliveries[0].message.attempt) == ([b"last"], 4)
        await taker.until(lambda: taker.source.held == 1)
        assert [one.fields["originMsgId"] for one in broker.of(RequestCode.CONSUMER_SEND_MSG_BACK)] == ["worn"]


async def test_a_group_in_order_keeps_its_attempt_id_until_messages_have_come() -> None:
    broker = FakePopBroker("broker-a")
    broker.settings["consumeMessageOrderly"] = True
    broker.refuses[RequestCode.POP_MESSAGE] = refuse(ResponseCode.SYSTEM_ERROR)
    async with popping(broker) as (taker, _):
        await taker.until(lambda: broker.of(RequestCode.POP_MESSAGE))
        del broker.refuses[RequestCode.POP_MESSAGE]
        broker.put(b"0")
        await taker.have(1)
        await taker.until(lambda: len(broker.of(RequestCode.POP_MESSAGE)) >= 3)
        *same, other = [one.fields["attemptId"] for one in broker.of(RequestCode.POP_MESSAGE)]
        assert len(set(same)) == 1 != other
        assert same[0] != other
        assert taker.source.status.detail["fifo"] is True


@pytest.mark.parametrize(
    ("code", "remark", "reason"),
    [
        (ResponseCode.POLLING_FULL, "", "too_many_requests"),
        (ResponseCode.NO_PERMISSION, "the topic[t] peeking message is forbidden", "forbidden"),
        (
            ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST,
            "subscription group [g] does not exist",
            "consumer_group_not_found",
        ),
        (ResponseCode.SUBSCRIPTION_PARSE_FAILED, "", "illegal_filter_expression"),
        (ResponseCode.GO_AWAY, "", "go_away"),
    ],
)
async def test_receiving_goes_on_after_refusals(code: ResponseCode, remark: str, reason: str) -> None:
    broker = FakePopBroker("broker-a")
    broker.refuses[RequestCode.POP_MESSAGE] = refuse(code, remark, times=99)
    async with popping(broker) as (taker, _):
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        assert taker.source.status.last_error
        del broker.refuses[RequestCode.POP_MESSAGE]
        broker.put(b"0")
        await taker.have(1)
        await taker.until(lambda: taker.source.status.link is Link.UP)
        failures = [event for event in taker.recorder.events if event.name == "rocketmq.receive.failures"]
        assert reason in {event.labels()["reason"] for event in failures}


async def test_brokers_come_and_go_with_the_route() -> None:
    one, other = FakePopBroker("broker-a"), FakePopBroker("broker-b")
    async with popping(one) as (taker, cluster):
        one.put(b"0")
        await taker.have(1)
        await cluster.add(other)
        other.put(b"1")
        await taker.have(2)
        assert set(taker.source.status.detail["brokers"]) == {"broker-a", "broker-b"}
        cluster.brokers.remove(other)
        await taker.until(lambda: set(taker.source.status.detail["brokers"]) == {"broker-a"})


async def test_nothing_is_handed_to_who_has_stopped() -> None:
    broker = FakePopBroker("broker-a")
    async with popping(broker) as (taker, _):
        await taker.until(lambda: broker.of(RequestCode.POP_MESSAGE))
        await taker.source.stop_intake()
        asked = len(broker.of(RequestCode.POP_MESSAGE))
        broker.put(b"0")
        await taker.source.give_back()
        assert (broker.popped, len(broker.of(RequestCode.POP_MESSAGE))) == (0, asked)


@pytest.mark.parametrize("refusal", [ResponseCode.REQUEST_CODE_NOT_SUPPORTED, None], ids=["refused", "old"])
async def test_where_there_is_no_pop_it_pulls(refusal: int | None) -> None:
    broker = FakePopBroker("broker-a", version=399 if refusal is None else 513)  # V4_9_3
    if refusal is not None:
        broker.refuses[RequestCode.POP_MESSAGE] = refuse(refusal, times=99)
    async with popping(broker) as (taker, _):
        await taker.until(lambda: taker.source.status.detail["receives_by"] == "pull")
        await taker.until(lambda: broker.of(RequestCode.GET_CONSUMER_LIST_BY_GROUP))
        assert (refusal is None) is not bool(broker.of(RequestCode.POP_MESSAGE))


async def test_nobody_there_is_told_in_plain_words() -> None:
    broker = FakePopBroker("broker-a")
    async with popping(broker) as (taker, cluster):
        await taker.until(lambda: taker.source.status.link is Link.UP)
        await cluster.stop()
    await taker.source.close()
    assert taker.source.status.link is Link.CLOSED


async def test_every_request_is_signed() -> None:
    broker, keys = FakePopBroker("broker-a"), AclKeys("access", "secret")
    async with popping(broker, access_key="access", secret_key="secret") as (taker, _):
        broker.put(b"0", b"1", b"2")
        await taker.have(3)
        taker.source.nack(taker.named(b"0"), "why")
        taker.source.reject(taker.named(b"1"), "why")
        taker.source.ack(taker.named(b"2"))
        await taker.nothing_held()
    assert {ACK, HIDE, RequestCode.POP_MESSAGE, RequestCode.HEART_BEAT} <= {frame.code for frame in broker.asked}
    for frame in broker.asked:
        assert signed(frame.fields, frame.body, keys)["Signature"] == frame.fields["Signature"]
