"""The lag as real brokers tell it: by the name server, and by a proxy in cluster mode."""

from __future__ import annotations

import time
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from spanbridge.app.clock import SystemClock
from spanbridge.core.errors import OffsetsError
from spanbridge.devstack import Devstack, RocketmqBroker
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.lag import LagOptions, LagReader, LagReading, LagState, Meaning, WatchedGroup
from spanbridge.ports import TopicQueue
from spanbridge.rocketmq.offsets import OffsetsOptions, RemotingOffsets
from spanbridge.rocketmq.remoting import admin
from spanbridge.rocketmq.remoting.blocking import BlockingClient
from spanbridge.rocketmq.remoting.call import Call

pytestmark = [pytest.mark.brokers, pytest.mark.anyio]


def send(topic: str, queue: int) -> Call[int]:
    """Store a message (SEND_MESSAGE_V2)."""
    fields = {"a": "test", "b": topic, "c": "TBW102", "d": "4", "e": str(queue), "f": "0", "h": "0", "i": ""}
    fields |= {"g": str(int(time.time() * 1000)), "j": "0", "k": "false"}
    return Call(what="store", code=310, fields=fields, body=b"x", read=lambda answer: int(answer.fields["queueOffset"]))


def commit(group: str, topic: str, queue: int, offset: int) -> Call[None]:
    """Commit an offset (UPDATE_CONSUMER_OFFSET)."""
    fields = {"consumerGroup": group, "topic": topic, "queueId": str(queue), "commitOffset": str(offset)}
    return Call(what="commit", code=15, fields=fields, read=lambda _: None)


def prepare(rocketmq: RocketmqBroker) -> tuple[str, str, str]:
    """A topic with 5 messages in queue 0 and none in queue 1, a group that got 2, and one that never did."""
    topic, group, idle = rocketmq.create_topic(queues=2), rocketmq.create_group(), rocketmq.create_group(fifo=True)
    with BlockingClient(f"{rocketmq.host}:{rocketmq.broker_port}") as client:
        for _ in range(5):
            client.ask(send(topic, 0))
        client.ask(commit(group, topic, 0, 2))
        deadline = time.monotonic() + 30
        while client.ask(admin.max_offset(topic, 0)) < 5:  # a queue is filled a moment after the response
            assert time.monotonic() < deadline
            time.sleep(0.02)
    return topic, group, idle


async def read(address: str, *groups: WatchedGroup, topics: tuple[str, ...] = ()) -> LagReading:
    offsets = RemotingOffsets(OffsetsOptions(name_servers=(address,), timeout=10))
    try:
        return await LagReader(offsets, LagOptions(groups=groups, topics=topics), SystemClock()).read()
    finally:
        await offsets.close()


async def test_by_the_name_server(devstack: SharedStack) -> None:
    rocketmq = devstack.rocketmq
    topic, group, idle = await anyio.to_thread.run_sync(prepare, rocketmq)
    found = await read(rocketmq.namesrv, WatchedGroup(group, (topic,)), WatchedGroup(idle, (topic,)))
    assert found.errors == ()
    behind, never = found.rows
    assert [(queue.max_offset, queue.committed, queue.lag) for queue in behind.queues] == [(5, 2, 3), (0, None, 0)]
    assert (behind.means, behind.lag, behind.members) == (Meaning.NOT_DELIVERED, 3, 0)
    assert behind.age is not None
    assert (never.state, never.lag, never.uncommitted) == (LagState.NEVER_COMMITTED, None, 5)
    assert found.dead_letters == {group: 0, idle: 0}


async def test_groups_are_found_by_their_topic_and_nothing_is_made_by_asking(devstack: SharedStack) -> None:
    rocketmq = devstack.rocketmq
    topic, group, _ = await anyio.to_thread.run_sync(prepare, rocketmq)
    found = await read(rocketmq.namesrv, topics=(topic,))
    assert [(row.group, row.lag) for row in found.rows] == [(group, 3)]
    stranger = devstack.unique("G")
    missing = await read(rocketmq.namesrv, WatchedGroup(stranger, (topic, f"{topic}-none")))
    assert [row.state for row in missing.rows] == [LagState.NO_GROUP, LagState.NO_TOPIC]
    again = await read(rocketmq.namesrv, WatchedGroup(stranger, (topic,)))
    assert [row.state for row in again.rows] == [LagState.NO_GROUP]


async def test_nobody_answers(devstack: SharedStack) -> None:
    offsets = RemotingOffsets(OffsetsOptions(name_servers=("127.0.0.1:1", devstack.rocketmq.namesrv), timeout=10))
    assert await offsets.queues("none-of-these") == ()  # by the second
    with pytest.raises(OffsetsError, match="has no master"):
        await offsets.max_offset(TopicQueue("t", "broker-x", 0))
    await offsets.close()
    found = await read("127.0.0.1:1", WatchedGroup("g", ("t", "u")))
    assert [row.state for row in found.rows] == [LagState.UNREADABLE] * 2
    assert len(found.errors) == 1
    assert "127.0.0.1:1" in found.errors[0][0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RocketmqBroker]:
    with Devstack.up(mqtt_v5=False, mqtt_v311=False, cluster_mode=True) as stack:
        yield stack.rocketmq


@pytest.mark.timeout(500)  # three JVMs start one after the other: 150 s were seen on two cores with a load of 20
async def test_by_a_proxy_in_cluster_mode(cluster: RocketmqBroker) -> None:
    topic, group, idle = await anyio.to_thread.run_sync(prepare, cluster)
    proxy = f"{cluster.host}:{cluster.remoting_port}"
    found = await read(proxy, WatchedGroup(group, (topic,), ordered=True), WatchedGroup(idle, (topic,)))
    assert found.errors == ()
    assert [(row.lag, row.uncommitted) for row in found.rows] == [(3, 0), (None, 5)]
    assert [row.means for row in found.rows] == [Meaning.NOT_ACKNOWLEDGED, Meaning.UNKNOWN]  # proxies do not say
    straight = await read(cluster.namesrv, WatchedGroup(group, (topic,)))
    assert [(row.lag, row.means) for row in straight.rows] == [(3, Meaning.NOT_DELIVERED)]
