"""The consumer that pulls, against a broker that does as it is told: no message is forgotten, and no queue stands."""

from __future__ import annotations

import pytest

from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode

from .fake_pop import popping
from .fake_pull import RETRY, FakePullBroker, failing, look, offset_of, pulling

pytestmark = pytest.mark.anyio


async def test_what_comes_from_the_retry_topic_while_it_is_in_our_hands_has_an_answer_of_its_own() -> None:
    """A member before us sent it back and died before it committed: it is in both queues."""
    broker = FakePullBroker("broker-a")
    broker.store(0, b"a")
    async with pulling(broker) as taker:
        await taker.have(1)
        broker.store(0, b"a", topic=RETRY, attempts=1)
        await taker.have(2)
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()
        await taker.until(lambda: broker.committed == {"t": 1, RETRY: 1})


async def test_a_copy_that_is_delivered_once_more_leaves_the_first_alone() -> None:
    """A producer that heard no answer sends again, under the same id."""
    broker = FakePullBroker("broker-a", orderly=True)
    broker.store(0, b"a")
    broker.store(1, b"a")
    async with pulling(broker) as taker:
        first, second = await taker.have(2)
        taker.source.nack([second], "why")
        await taker.have(3)
        taker.source.ack([first, taker.deliveries[2]])
        await taker.nothing_held()
        await taker.until(lambda: broker.committed.get("t") == 2)


async def test_a_pause_that_ends_after_the_queue_has_gone_and_come_again_changes_nothing() -> None:
    broker = FakePullBroker("broker-a", orderly=True)
    broker.store(0, b"a")
    async with pulling(broker) as taker:
        await taker.have(1)
        taker.source.nack(taker.deliveries, "why")
        broker.taken = True
        look(taker)
        await taker.nothing_held()
        broker.taken = False
        look(taker)
        await taker.have(2)
        waiting = taker.source._way._answers._waiting  # type: ignore[attr-defined]
        await taker.until(lambda: not waiting)
        assert taker.source.unacked == taker.source.held == 1
        taker.source.ack(taker.deliveries[1:])
        await taker.nothing_held()
        await taker.until(lambda: broker.committed.get("t") == 1)


async def test_an_answer_to_what_a_broker_has_lost_is_none_to_what_took_its_place() -> None:
    """A replica that had not all of it became master: offsets are given a second time."""
    broker = FakePullBroker("broker-a")
    broker.store(0, b"a")
    broker.store(1, b"lost")
    async with pulling(broker, long_poll=0.1) as taker:
        await taker.have(2)
        taker.source.ack(taker.named(b"a"))
        del broker.queues["t"][1]
        await taker.until(lambda: broker.moved)
        broker.store(1, b"new")
        broker.store(2, b"behind")
        await taker.have(4)
        taker.source.ack(taker.named(b"lost", b"behind"))
        assert offset_of(taker) == 1, "what took its place is not handled"
        taker.source.ack(taker.named(b"new"))
        await taker.nothing_held()
        await taker.until(lambda: broker.committed.get("t") == 3)


async def test_a_broker_that_has_left_the_route_is_no_failure() -> None:
    one, other = FakePullBroker("broker-a"), FakePullBroker("broker-b")
    async with popping(one, other, receive_by="pull") as (taker, cluster):
        other.refuses[RequestCode.PULL_MESSAGE] = lambda request: request.response(ResponseCode.SYSTEM_ERROR)
        other.store(0, b"a")
        await taker.until(lambda: failing(taker))
        cluster.brokers.remove(other)
        await taker.until(lambda: (look(taker), failing(taker) is None)[1])
        await taker.until(lambda: taker.source.status.detail["brokers"] == {"broker-a": True})
