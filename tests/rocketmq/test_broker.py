"""The sinks on a real RocketMQ: what is sent is what is stored, where and in the order it should be.

What both protocols promise is tested over both, and read back by gRPC.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from spanbridge.core.errors import SinkMisconfigured, SinkRejected, SinkUnavailable
from spanbridge.core.events import Event
from spanbridge.core.message import Destination
from spanbridge.core.tls import TlsOptions
from spanbridge.devstack import FaultProxy
from spanbridge.ports import Sink
from spanbridge.rocketmq import RocketmqOptions, create_sink
from spanbridge.rocketmq.remoting.admin import topic_route
from spanbridge.rocketmq.remoting.client import RemotingClient

from .reading import Reader

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


class Silent:
    """A reporter for whom nothing is news."""

    def report(self, event: Event) -> None:
        pass


both_protocols = pytest.mark.parametrize("protocol", ["grpc", "remoting"])


def of(devstack: Any, protocol: str) -> dict[str, Any]:
    """Options by which a sink reaches the cluster."""
    rocketmq = devstack.rocketmq
    return {"protocol": protocol, "endpoints": rocketmq.endpoints if protocol == "grpc" else rocketmq.namesrv}


@asynccontextmanager
async def sink_to(endpoints: str, **options: Any) -> AsyncIterator[Sink[Destination]]:
    sink = create_sink(RocketmqOptions(endpoints=endpoints, **options), Silent())
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


async def broker_of(rocketmq: Any, topic: str) -> str:
    """The address of the broker that has the topic."""
    async with RemotingClient(rocketmq.namesrv, timeout=20.0) as client:
        route = await client.ask(topic_route(topic))
    assert route is not None
    assert route.brokers[0].master is not None
    return route.brokers[0].master


def by_group(messages: list[Any]) -> tuple[dict[str, set[int]], dict[str, list[int]]]:
    """Queues and bodies (as numbers) of each message group, in the order of storage."""
    queues, bodies = defaultdict(set), defaultdict(list)
    for message in messages:
        group = message.system_properties.message_group
        queues[group].add(message.system_properties.queue_id)
        bodies[group].append(int(message.body))
    return queues, bodies


@both_protocols
async def test_every_part_of_a_message_is_stored(devstack: Any, protocol: str) -> None:
    topic, endpoints = devstack.topic(), devstack.rocketmq.endpoints
    async with sink_to(**of(devstack, protocol), topics=(topic,)) as sink:
        address = Destination(topic, tag="tag-ü", keys=("k1", "k2"), properties=(("mqtt.topic", "a/ü"), ("empty", "")))
        head = sink.head(address)
        born_ns = time.time_ns()
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        bodies = [b"\x00", b"\xff" * 70_000, *(b"%d" % n for n in range(48))]
        batch = [head.encode(body, parent, [("n", str(n))], born_ns) for n, body in enumerate(bodies)]
        await sink.send(topic, head.partition, batch)
        await sink.probe()
        assert sink.status.detail["topics"][topic]["queues"] == 4
        assert sink.status.detail["topics"][topic]["types"] == (["NORMAL"] if protocol == "grpc" else [])
    messages = await Reader(endpoints, topic, devstack.group()).read(50)
    assert [message.body for message in messages] == bodies
    for number, message in enumerate(messages):
        system, properties = message.system_properties, dict(message.user_properties)
        assert (system.tag, list(system.keys)) == ("tag-ü", ["k1", "k2"])
        assert properties.pop("n") == str(number)
        assert properties.pop("traceparent") == parent
        assert properties.pop("mqtt.topic") == "a/ü"
        assert system.born_timestamp.ToMilliseconds() == born_ns // 1_000_000
        assert len(system.message_id) == 34
    assert len({message.system_properties.message_id for message in messages}) == 50


@both_protocols
@pytest.mark.parametrize("queues", [1, 4])
async def test_groups_keep_their_queue_and_order_in_batches_and_alone(
    devstack: Any, queues: int, protocol: str
) -> None:
    topic, endpoints = devstack.topic("FIFO", queues=queues), devstack.rocketmq.endpoints
    async with sink_to(**of(devstack, protocol), request_timeout=20.0) as sink:  # a slow machine is not silent
        forms = [sink.head(Destination(topic, group=f"plant/7/device/{n}")) for n in range(24)]
        for turn in range(3):
            partitions = defaultdict(list)
            for number in range(turn * 4, turn * 4 + 4):
                for form in forms:
                    partitions[form.partition].append(form.encode(b"%d" % number, "", (), time.time_ns()))
            assert len(partitions) > 1
            await asyncio.gather(*(sink.send(topic, partition, batch) for partition, batch in partitions.items()))
    # And by gRPC one message in a request of its own, which the proxy places by its hash of the group.
    async with sink_to(endpoints, request_timeout=20.0) as sink:
        for form in [sink.head(Destination(topic, group=f"plant/7/device/{n}")) for n in range(24)]:
            await sink.send(topic, form.partition, [form.encode(b"12", "", (), time.time_ns())])
    messages = await Reader(endpoints, topic, devstack.group()).read(24 * 13)
    used, order = by_group(messages)
    assert all(len(ids) == 1 for ids in used.values())
    assert len({next(iter(ids)) for ids in used.values()}) == queues
    assert list(order.values()) == [list(range(13))] * 24


@both_protocols
async def test_delivery_timestamps_are_kept(devstack: Any, protocol: str) -> None:
    topic, endpoints = devstack.topic("DELAY", queues=1), devstack.rocketmq.endpoints
    due = int(time.time() * 1000) + 1500
    async with sink_to(**of(devstack, protocol)) as sink:
        head = sink.head(Destination(topic, delivery_timestamp_ms=due))
        batch = [head.encode(b"%d" % n, "", (), time.time_ns()) for n in range(5)]
        await sink.send(topic, head.partition, batch)
    messages = await Reader(endpoints, topic, devstack.group()).read(5)
    # The timer works in seconds: it may come up to one early against our clock.
    assert time.time() * 1000 >= due - 1000
    assert {message.body for message in messages} == {b"%d" % n for n in range(5)}
    assert {message.system_properties.delivery_timestamp.ToMilliseconds() for message in messages} == {due}


async def test_what_an_operator_has_to_mend(devstack: Any) -> None:
    fifo, endpoints, missing = devstack.topic("FIFO", queues=1), devstack.rocketmq.endpoints, devstack.unique("missing")
    async with sink_to(endpoints) as sink:
        for topic, reason in ((missing, "topic_not_found"), (fifo, "message_property_conflict_with_type")):
            head = sink.head(Destination(topic))
            with pytest.raises(SinkMisconfigured, match=topic) as caught:
                await sink.send(topic, head.partition, [head.encode(b"x", "", (), time.time_ns())])
            assert caught.value.reason == reason
        await anyio.to_thread.run_sync(devstack.rocketmq.create_topic, missing)
        await sink.send(missing, -1, [sink.head(Destination(missing)).encode(b"x", "", (), time.time_ns())])


@both_protocols
async def test_the_brokers_size_limits(devstack: Any, protocol: str) -> None:
    topic = devstack.topic(queues=1)
    async with sink_to(**of(devstack, protocol), request_timeout=20.0) as sink:
        head = sink.head(Destination(topic))
        limit: int = sink.status.detail["max_body_bytes"]
        with pytest.raises(SinkRejected):
            head.encode(b"x" * (limit + 1), "", (), 1)
        batch = [head.encode(b"x" * (limit // 3), "", (), 1) for _ in range(4)]
        await sink.send(topic, -1, batch)
        await sink.send(topic, -1, [head.encode(b"x" * limit, "", (), 1)])


@both_protocols
async def test_tls(devstack: Any, tmp_path: Path, protocol: str) -> None:
    topic, rocketmq = devstack.topic(queues=1), devstack.rocketmq
    ca = tmp_path / "ca.pem"
    pem = await anyio.to_thread.run_sync(ssl.get_server_certificate, (rocketmq.host, rocketmq.port))
    ca.write_text(pem)
    # Name server and broker make certificates of one name at their start: no file can vouch for both.
    tls = TlsOptions(ca_file=str(ca), server_name="localhost") if protocol == "grpc" else TlsOptions(verify=False)
    options = {"tls": tls, "topics": (topic,)}
    async with sink_to(**of(devstack, protocol), **options) as sink:
        await sink.send(topic, -1, [sink.head(Destination(topic)).encode(b"sealed", "", (), time.time_ns())])
        await sink.probe()
    async with sink_to(**of(devstack, protocol), tls=TlsOptions(), attempts=1) as sink:
        with pytest.raises(SinkMisconfigured) as caught:
            await sink.send(topic, -1, [sink.head(Destination(topic)).encode(b"x", "", (), 1)])
        assert caught.value.reason == "tls"
    (message,) = await Reader(rocketmq.endpoints, topic, devstack.group()).read(1)
    assert message.body == b"sealed"


async def test_a_line_that_goes_dead_and_comes_back(devstack: Any) -> None:
    topic, rocketmq = devstack.topic(queues=1), devstack.rocketmq
    with FaultProxy(rocketmq.host, rocketmq.port) as line:
        async with sink_to(line.endpoints, follow_routes=False, request_timeout=0.5, heartbeat_interval=0.5) as sink:
            head = sink.head(Destination(topic))

            async def send(body: bytes) -> None:
                await sink.send(topic, -1, [head.encode(body, "", (), time.time_ns())])

            async def send_often(body: bytes) -> None:
                for _ in range(5):
                    await send(body)

            async def send_until_stored(body: bytes) -> None:
                with anyio.fail_after(15):
                    while True:
                        try:
                            await send(body)
                        except SinkUnavailable:
                            await anyio.sleep(0.1)
                        else:
                            return

            await send_until_stored(b"before")
            for fault in (line.blackhole, line.refuse, line.reset):
                fault()
                with pytest.raises(SinkUnavailable):
                    await send_often(b"lost?")
                line.resume()
                await send_until_stored(fault.__name__.encode())
    reader = Reader(rocketmq.endpoints, topic, devstack.group())
    missing = {b"before", b"blackhole", b"refuse", b"reset"}
    while missing:  # what was tried again may be stored twice
        missing -= {message.body for message in await reader.read(1)}
