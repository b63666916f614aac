"""The native clients on RocketMQ 4.9.7, which has neither proxy nor message types nor timers, with keys (ACL 1.0)."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import anyio.to_thread
import pytest

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError, SinkMisconfigured
from spanbridge.core.message import Destination, Message
from spanbridge.devstack import Devstack
from spanbridge.devstack.pytest_plugin import SharedStack

from .consuming import consuming
from .test_acl import ACCESS, SECRET, keys_decide_at
from .test_broker import sink_to
from .test_native import PARENT, compressed_bodies_are_stored, stored

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


@pytest.fixture(scope="module")
def classic() -> Iterator[SharedStack]:
    with Devstack.up(mqtt_v5=False, mqtt_v311=False, rocketmq_version="4.9.7", credentials=(ACCESS, SECRET)) as stack:
        yield SharedStack(stack)


def of(classic: SharedStack) -> dict[str, Any]:
    keys = {"access_key": ACCESS, "secret_key": SECRET}
    return {"protocol": "remoting", "endpoints": classic.rocketmq.endpoints, "request_timeout": 20.0, **keys}


async def test_keys_decide(classic: SharedStack) -> None:
    await keys_decide_at(classic.rocketmq)


async def test_single_messages_and_batches_are_stored_as_they_are(classic: SharedStack) -> None:
    topic, born_ns = classic.topic(queues=1), time.time_ns()
    async with sink_to(**of(classic)) as sink:
        head = sink.head(Destination(topic, tag="tag-ü", keys=("k1", "k2"), properties=(("mqtt.topic", "a/ü"),)))
        for size in (1, 3):
            batch = [head.encode(b"\x00%d" % n, PARENT, [("n", str(n))], born_ns) for n in range(size)]
            await sink.send(topic, head.partition, batch)
    messages = await stored(classic, topic, 4, 1)
    assert [message.body for message in messages] == [b"\x000", b"\x000", b"\x001", b"\x002"]
    assert {message.properties["traceparent"] for message in messages} == {PARENT}
    assert {message.properties["TAGS"] for message in messages} == {"tag-ü"}
    assert {message.properties["mqtt.topic"] for message in messages} == {"a/ü"}


async def test_groups_keep_their_queue_and_their_order_over_a_restart(classic: SharedStack) -> None:
    topic, groups = classic.topic(queues=3), ("a", "b", "c", "d")
    sent: dict[str, list[bytes]] = defaultdict(list)
    async with sink_to(**of(classic)) as sink:
        heads = {group: sink.head(Destination(topic, group=group)) for group in groups}
        for number in range(8):
            if number == 4:
                await anyio.to_thread.run_sync(classic.rocketmq.restart)
            for group, head in heads.items():
                body = b"%d" % number
                await until_stored(sink, topic, head.partition, [head.encode(body, PARENT, (), time.time_ns())])
                sent[group].append(body)
    places: dict[str, set[int]] = defaultdict(set)
    found: dict[str, list[bytes]] = defaultdict(list)
    for message in await stored(classic, topic, 32, 3):
        group = message.properties["__SHARDINGKEY"]
        places[group].add(message.queue_id)
        if message.body not in found[group]:  # a request without an answer may have been stored
            found[group].append(message.body)
    assert found == sent
    assert all(len(queues) == 1 for queues in places.values())


async def until_stored(sink: Any, topic: str, partition: int, batch: list[bytes]) -> None:
    while True:
        try:
            await sink.send(topic, partition, batch)
        except SinkMisconfigured:
            raise
        except SinkError:
            await asyncio.sleep(0.1)
        else:
            return


async def test_delivery_timestamps_become_delay_levels(classic: SharedStack) -> None:
    """The level is counted from when the message is stored: never before its time, and not at once."""
    topic = classic.topic(queues=1)
    async with sink_to(**of(classic), delay_levels=True) as sink:
        for body, wait_ms in ((b"later", 1500), (b"past", -1000)):
            due = time.time_ns() // 1_000_000 + wait_ms
            head = sink.head(Destination(topic, delivery_timestamp_ms=due, properties=(("due", str(due)),)))
            await sink.send(topic, head.partition, [head.encode(body, PARENT, (), time.time_ns())])
    past, later = await stored(classic, topic, 2, 1)
    assert (past.body, later.body) == (b"past", b"later")
    assert later.store_ms >= int(later.properties["due"])
    assert later.properties["traceparent"] == PARENT


async def test_compressed_bodies_alone_and_in_batches(classic: SharedStack) -> None:
    await compressed_bodies_are_stored(classic, of(classic))


async def test_topics_that_are_missing_are_named(classic: SharedStack) -> None:
    missing = classic.unique("missing")
    async with sink_to(**of(classic), topics=(missing,)) as sink:
        with pytest.raises(SinkMisconfigured, match=missing):
            await sink.probe()


async def test_members_of_a_group_share_its_queues_and_take_over_from_one_that_leaves(classic: SharedStack) -> None:
    topic, group, options = classic.topic(queues=4), classic.group(), of(classic)
    endpoints, numbers = options.pop("endpoints"), count()
    async with sink_to(endpoints, **options) as sink, consuming(endpoints, group, topic, **options) as first:
        first.automatic = True
        head = sink.head(Destination(topic))

        async def send_until(condition: Callable[[], object]) -> None:
            async with asyncio.timeout(120):
                while not condition():  # one by one, so that they go to each queue in turn
                    message = head.encode(b"%d" % next(numbers), PARENT, (), time.time_ns())
                    await sink.send(topic, head.partition, [message])
                    await asyncio.sleep(0.1)

        await send_until(lambda: queues(first.deliveries) == 4)
        assert first.source.status.detail["receives_by"] == "pull"
        async with consuming(endpoints, group, topic, **options) as second:
            second.automatic = True
            await send_until(lambda: queues(second.deliveries) == 2)
            seen = len(first.deliveries)
            await send_until(lambda: queues(first.deliveries[seen:]) == 2)
            assert queues(second.deliveries) == 2, "two each"
        seen = len(first.deliveries)
        await send_until(lambda: queues(first.deliveries[seen:]) == 4)
        wanted = {b"%d" % number for number in range(next(numbers))}
        await first.until(lambda: {*first.bodies, *second.bodies} == wanted)


def queues(deliveries: Sequence[Delivery[Message]]) -> int:
    return len({delivery.message.queue for delivery in deliveries})


async def test_what_cannot_be_handled_comes_again(classic: SharedStack) -> None:
    topic, options = classic.topic(queues=1), of(classic)
    endpoints = options.pop("endpoints")
    async with sink_to(endpoints, **options) as sink, consuming(endpoints, classic.group(), topic, **options) as taker:
        head = sink.head(Destination(topic, tag="t"))
        await sink.send(topic, head.partition, [head.encode(b"once", PARENT, (), time.time_ns())])
        (delivery,) = await taker.have(1)
        taker.source.nack([delivery], "not now")
        _, again = await taker.have(2)
        assert (again.message.body, again.message.tag) == (b"once", "t")
        assert again.message.attempt > delivery.message.attempt
        taker.source.ack([again])
        await taker.nothing_held()
