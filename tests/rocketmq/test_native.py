"""Both producers side by side on a real RocketMQ: what they store is the same, and groups share their queues."""

from __future__ import annotations

import time
import zlib
from typing import Any

import pytest

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.message import Destination
from spanbridge.rocketmq.remoting.client import RemotingClient
from spanbridge.rocketmq.remoting.pull import pull
from spanbridge.rocketmq.remoting.stored import StoredMessage

from .consuming import consuming
from .test_broker import both_protocols, broker_of, of, sink_to

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OF_THE_PROXY = {"__BORNHOST", "PGROUP", "RECONSUME_TIME"}
"""Properties that a proxy adds and no native client does: whose message it was, and a count that starts at 0."""


async def stored(devstack: Any, topic: str, count: int, queues: int) -> list[StoredMessage]:
    """All messages of a topic, by queue and offset. A broker fills its queues a moment after it has answered."""
    group, found = devstack.group(), list[StoredMessage]()
    rocketmq = devstack.rocketmq
    async with RemotingClient(await broker_of(rocketmq, topic), timeout=20.0, keys=rocketmq.broker_keys) as client:
        at = [0] * queues
        while len(found) < count:
            for queue in range(queues):
                pulled = await client.ask(pull(group, topic, queue, at[queue]))
                found += pulled.messages
                at[queue] += len(pulled.messages)
    return sorted(found, key=lambda message: (message.queue_id, message.queue_offset))


@pytest.mark.parametrize("count", [1, 3])
async def test_both_store_the_same(devstack: Any, count: int) -> None:
    topic, born_ns = devstack.topic(queues=1), time.time_ns() - 5_000_000_000
    destination = Destination(topic, tag="tag-ü", keys=("k1", "k2"), properties=(("mqtt.topic", "a/ü"),))
    for protocol in ("grpc", "remoting"):
        async with sink_to(**of(devstack, protocol), request_timeout=20.0) as sink:
            head = sink.head(destination)
            batch = [head.encode(b"\x00%d" % n, PARENT, [("n", str(n))], born_ns) for n in range(count)]
            await sink.send(topic, head.partition, batch)
    messages = await stored(devstack, topic, 2 * count, 1)
    assert len({message.properties["UNIQ_KEY"] for message in messages}) == 2 * count
    for by_grpc, natively in zip(messages[:count], messages[count:], strict=True):
        for field in ("topic", "queue_id", "system_flag", "born_ms", "attempts", "body"):
            assert getattr(by_grpc, field) == getattr(natively, field), field
        own, other = dict(natively.properties), dict(by_grpc.properties)
        assert len(own.pop("UNIQ_KEY")) == len(other.pop("UNIQ_KEY")) == 34
        assert own == {name: value for name, value in other.items() if name not in OF_THE_PROXY}


async def compressed_bodies_are_stored(stack: Any, options: dict[str, Any]) -> str:
    """One alone, then a batch with some of both kinds; returns the topic."""
    topic, large = stack.topic(queues=1), b'{"value": 21.5}' * 500
    async with sink_to(**options, compress_above=1024) as sink:
        head = sink.head(Destination(topic))
        for bodies in ([large], [large + b"1", large + b"2", b"small", large + b"3"]):
            await sink.send(topic, -1, [head.encode(body, PARENT, (), time.time_ns()) for body in bodies])
    messages = await stored(stack, topic, 5, 1)
    assert [message.system_flag & 0x701 for message in messages] == [1, 1, 1, 0, 1]
    bodies = [zlib.decompress(one.body) if one.system_flag & 1 else one.body for one in messages]
    assert bodies == [large, large + b"1", large + b"2", b"small", large + b"3"]
    assert len(messages[0].body) < len(large) / 10
    assert {message.properties["traceparent"] for message in messages} == {PARENT}
    return topic


async def test_compressed_bodies_are_read_by_grpc(devstack: Any) -> None:
    topic = await compressed_bodies_are_stored(devstack, {**of(devstack, "remoting"), "request_timeout": 20.0})
    async with consuming(devstack.rocketmq.endpoints, devstack.group(), topic, request_timeout=20.0) as taker:
        deliveries = await taker.have(5)
        taker.source.ack(deliveries)
        assert sorted(len(delivery.message.body) for delivery in deliveries) == [5, 7500, 7501, 7501, 7501]


async def test_auto_sends_by_what_the_endpoints_speak(devstack: Any) -> None:
    """A message is taken before it is known, one after."""
    topic = devstack.topic(queues=1)
    for endpoints in (devstack.rocketmq.endpoints, devstack.rocketmq.namesrv):
        async with sink_to(endpoints, protocol="auto", request_timeout=20.0) as sink:
            head = sink.head(Destination(topic, tag="x"))
            for body in (b"early", b"later"):
                await sink.send(topic, head.partition, [head.encode(body, PARENT, (), time.time_ns())])
    messages = await stored(devstack, topic, 4, 1)
    assert [message.body for message in messages] == [b"early", b"later"] * 2
    assert {message.properties["TAGS"] for message in messages} == {"x"}
    assert {message.properties["traceparent"] for message in messages} == {PARENT}
    by_proxy = ["__BORNHOST" in message.properties for message in messages]
    assert by_proxy == [True, True, False, False]


async def test_auto_receives_by_what_the_endpoints_speak(devstack: Any) -> None:
    for endpoints in (devstack.rocketmq.endpoints, devstack.rocketmq.namesrv):
        topic, group = devstack.topic(queues=1), devstack.group()
        async with consuming(endpoints, group, topic, protocol="auto", request_timeout=20.0) as taker:
            async with sink_to(endpoints, protocol="auto", request_timeout=20.0) as sink:
                head = sink.head(Destination(topic))
                await sink.send(topic, head.partition, [head.encode(b"x", PARENT, (), time.time_ns())])
            deliveries = await taker.have(1)
            assert deliveries[0].message.body == b"x"
            taker.source.ack(deliveries)
            await taker.nothing_held()


@pytest.mark.parametrize("queues", [5])
async def test_groups_find_the_queue_that_the_proxy_finds(devstack: Any, queues: int) -> None:
    """One message to a request by gRPC: only then does the proxy look at the group."""
    topic, groups = devstack.topic("FIFO", queues=queues), [f"plant/7/gerät-{n}" for n in range(40)]
    for protocol in ("grpc", "remoting"):
        async with sink_to(**of(devstack, protocol), request_timeout=20.0) as sink:
            for head in [sink.head(Destination(topic, group=group)) for group in groups]:
                await sink.send(topic, head.partition, [head.encode(protocol.encode(), "", (), time.time_ns())])
    used: dict[str, list[int]] = {}
    for message in await stored(devstack, topic, 80, queues):
        used.setdefault(message.properties["__SHARDINGKEY"], []).append(message.queue_id)
    assert all(len(places) == 2 and len(set(places)) == 1 for places in used.values())
    assert {places[0] for places in used.values()} == set(range(queues))


@both_protocols
async def test_topics_that_are_missing_until_they_are_made(devstack: Any, protocol: str) -> None:
    missing = devstack.unique("missing")
    async with sink_to(**of(devstack, protocol), request_timeout=20.0, topics=(missing,)) as sink:
        with pytest.raises(SinkMisconfigured, match=missing) as caught:
            await sink.probe()
        assert caught.value.reason == "topic_not_found"
