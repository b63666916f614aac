"""The consumer on a real RocketMQ: what any implementation of the port ``QueueSource`` has to do."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from spanbridge.core.message import Destination
from spanbridge.core.tls import TlsOptions
from spanbridge.ports import Link
from spanbridge.rocketmq import RocketmqOptions
from spanbridge.rocketmq.grpc.producer import GrpcProducer
from tests.fakes import FakeReporter

from .consuming import consuming, sending

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]
LOOPS = [("asyncio", {"use_uvloop": uvloop}) for uvloop in (False, True)]


@pytest.fixture
def anyio_backend() -> object:
    """The loop that production uses. Both where the loop's own parts matter; the tests of peers run on both."""
    return LOOPS[1]


@pytest.fixture(params=["grpc", "pop", "pull"])
def way(request: pytest.FixtureRequest, devstack: Any) -> dict[str, Any]:
    """By which protocol a consumer connects and receives, and where to."""
    if request.param == "grpc":
        return {"endpoints": devstack.rocketmq.endpoints, "protocol": "grpc"}
    return {"endpoints": devstack.rocketmq.namesrv, "protocol": "remoting", "receive_by": request.param}


BOTH_LOOPS = pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@BOTH_LOOPS
async def test_every_part_of_a_message_arrives(devstack: Any, way: dict[str, Any]) -> None:
    topic, group, endpoints = devstack.topic(), devstack.group(), devstack.rocketmq.endpoints
    sink = GrpcProducer(RocketmqOptions(endpoints=endpoints, request_timeout=20.0), FakeReporter())
    await sink.start()
    head = sink.head(Destination(topic, tag="tag-ü", keys=("k1", "k2"), properties=(("mqtt.topic", "a/ü"),)))
    born_ns = time.time_ns()
    bodies = [b"\x00", b"\xff" * 3_000_000, *(b"%d" % n for n in range(70))]
    await sink.send(topic, -1, [head.encode(body, PARENT, [("n", str(n))], born_ns) for n, body in enumerate(bodies)])
    await sink.close()
    async with consuming(**way, group=group, topic=topic) as taker:
        deliveries = await taker.have(len(bodies))
        assert sorted(taker.bodies) == sorted(bodies)
        assert taker.source.unacked == taker.source.held == len(bodies)
        assert taker.source.held_bytes > sum(map(len, bodies))
        oldest = taker.source.oldest_ns()
        assert oldest is not None
        assert oldest <= min(delivery.arrived_ns for delivery in deliveries)
        for delivery in deliveries:
            message = delivery.message
            number = bodies.index(message.body)
            assert (message.topic, message.tag, list(message.keys)) == (topic, "tag-ü", ["k1", "k2"])
            assert dict(message.properties) == {"mqtt.topic": "a/ü", "traceparent": PARENT, "n": str(number)}
            assert (message.group, message.delivery_timestamp_ms, message.fault) == (None, None, None)
            assert message.born_ns == born_ns // 1_000_000 * 1_000_000
            assert message.stored_ns
            assert message.received_ns > born_ns
            assert message.attempt == 1
            assert len(message.message_id) == 34
            assert delivery.expires_ns is None
        taker.source.ack(deliveries)
        taker.source.ack(deliveries)  # a second answer changes nothing
        await taker.nothing_held()
        assert taker.source.status.link is Link.UP
        assert sum(map(len, taker.received)) == len(bodies)
        # Who pulls tells RocketMQ from time to time how far it is.
        await taker.until(lambda: sum(count for _, count, _ in taker.acked) == len(bodies))
        assert {(named, error) for named, _, error in taker.acked} == {(topic, None)}
        assert taker.source.oldest_ns() is None
    async with consuming(**way, group=group, topic=topic) as taker, sending(endpoints, topic) as send:
        await send(b"next")
        await taker.have(1)
        assert taker.bodies == [b"next"], "what was acknowledged does not come again"
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()


async def test_a_tag_expression_chooses(devstack: Any, way: dict[str, Any]) -> None:
    topic, group, endpoints = devstack.topic(queues=1), devstack.group(), devstack.rocketmq.endpoints
    async with (
        consuming(**way, group=group, topic=topic, filter="a || b") as taker,
        sending(endpoints, topic) as send,
    ):
        taker.automatic = True
        for tag in "abca":
            await send(tag.encode(), tag=tag)
        await taker.have(3)
        await taker.nothing_held()
        assert sorted(taker.bodies) == [b"a", b"a", b"b"]


async def test_nacked_messages_come_again_and_count(devstack: Any, way: dict[str, Any]) -> None:
    topic, group, endpoints = devstack.topic(queues=1), devstack.group(), devstack.rocketmq.endpoints
    async with consuming(**way, group=group, topic=topic) as taker, sending(endpoints, topic) as send:
        await send(b"good", b"bad")
        await taker.have(2)
        taker.source.ack(taker.named(b"good"))
        taker.source.nack(taker.named(b"bad"), "the test says so")
        await taker.have(3)
        (again,) = taker.named(b"bad")
        assert again is taker.deliveries[2]
        assert again.message.attempt == 2
        taker.source.ack([again])
        await taker.nothing_held()
        assert "rocketmq.messages.nacked" in taker.recorder.names()


async def test_what_is_held_longer_than_its_invisible_time_stays_ours(devstack: Any, way: dict[str, Any]) -> None:
    if way.get("receive_by") == "pull":
        pytest.skip("what was pulled is ours until the queue is another's")
    topic, group, endpoints = devstack.topic(queues=1), devstack.group(), devstack.rocketmq.endpoints
    async with consuming(**way, group=group, topic=topic, invisible=6.0) as taker, sending(endpoints, topic) as send:
        await send(*(b"%d" % n for n in range(8)))
        deliveries = await taker.have(8)
        first = {delivery: delivery.handle for delivery in deliveries}  # type: ignore[attr-defined]
        async with consuming(**way, group=group, topic=topic) as other:
            await taker.until(lambda: all(one.handle != handle for one, handle in first.items()))  # type: ignore[attr-defined]
            over = max(delivery.arrived_ns for delivery in deliveries) + 7_000_000_000
            await taker.until(lambda: time.monotonic_ns() > over)
            taker.source.ack(deliveries)
            await taker.nothing_held()
            assert (len(taker.deliveries), other.deliveries) == (8, [])
            assert not {"rocketmq.acks.late", "rocketmq.holds.lost"} & set(taker.recorder.names())


@pytest.mark.parametrize("fifo", [False, True], ids=["normal", "fifo"])
async def test_rejected_messages_are_dead_letters(devstack: Any, way: dict[str, Any], fifo: bool) -> None:
    topic, endpoints = devstack.topic("FIFO" if fifo else "NORMAL", queues=1), devstack.rocketmq.endpoints
    group, reader = devstack.group(fifo=fifo), devstack.group()
    ordered = {"group": "d1"} if fifo else {}
    async with sending(endpoints, topic) as send:
        # All before it begins: what is unacked locks a FIFO group's queue, so that the others would not come.
        await send(b"1", b"never", b"3", **ordered)
    async with consuming(**way, group=group, topic=topic) as taker, sending(endpoints, topic) as send:
        await taker.have(3)
        taker.source.reject(taker.named(b"never"), "the test says so")
        taker.source.ack(taker.named(b"1", b"3"))
        await taker.nothing_held()
        await send(b"4", **ordered)
        await taker.have(4)
        assert taker.bodies == [b"1", b"never", b"3", b"4"], "nothing came again"
        taker.source.ack(taker.named(b"4"))
        await taker.nothing_held()
        assert "rocketmq.dead_letters.failures" not in taker.recorder.names()
    async with consuming(**way, group=reader, topic=f"%DLQ%{group}") as taker:
        await taker.have(1)
        assert taker.bodies == [b"never"]
        taker.source.ack(taker.deliveries)
        await taker.nothing_held()


@pytest.mark.parametrize("fifo", [False, True], ids=["normal", "fifo"])
async def test_what_is_given_back_comes_to_another_at_once(devstack: Any, way: dict[str, Any], fifo: bool) -> None:
    topic, endpoints = devstack.topic("FIFO" if fifo else "NORMAL", queues=1), devstack.rocketmq.endpoints
    group = devstack.group(fifo=fifo)
    ordered = {"group": "d1"} if fifo else {}
    async with sending(endpoints, topic) as send:
        await send(*(b"%d" % n for n in range(6)), **ordered)
    async with consuming(**way, group=group, topic=topic, invisible=3600.0) as taker:
        await taker.have(6)
        taker.source.ack(taker.named(b"0"))
        await taker.source.stop_intake()
        await taker.source.give_back()
        assert taker.source.held == taker.source.unacked == 0
        taker.source.ack(taker.deliveries)  # too late, and without effect
        async with consuming(**way, group=group, topic=topic) as other:
            await other.have(5)
            assert sorted(other.bodies) == [b"%d" % n for n in range(1, 6)]
            other.source.ack(other.deliveries)
            await other.nothing_held()


async def test_a_fifo_group_keeps_the_order_of_a_queue(devstack: Any, way: dict[str, Any]) -> None:
    topic, endpoints = devstack.topic("FIFO", queues=2), devstack.rocketmq.endpoints
    group = devstack.group(fifo=True)
    async with consuming(**way, group=group, topic=topic) as taker, sending(endpoints, topic) as send:
        taker.automatic = True
        for number in range(0, 30, 3):
            for device in ("d1", "d2", "d3"):
                for offset in range(3):
                    await send(b"%d" % (number + offset), group=device)
        await taker.have(90)
        await taker.nothing_held()
        assert taker.source.status.detail["fifo"] is True
        for device in ("d1", "d2", "d3"):
            order = [int(each.message.body) for each in taker.deliveries if each.message.group == device]
            assert order == list(range(30))


async def test_paused_it_asks_for_nothing(devstack: Any, way: dict[str, Any]) -> None:
    topic, group, endpoints = devstack.topic(queues=1), devstack.group(), devstack.rocketmq.endpoints
    async with (
        consuming(**way, group=group, topic=topic, max_unacked=10) as taker,
        sending(endpoints, topic) as send,
    ):
        await send(*(b"%d" % n for n in range(200)))
        await taker.have(10)
        # At the bound itself: the calls under way may bring a batch each.
        assert taker.source.unacked <= 10 + 4 * 32
        taker.source.pause()
        taker.automatic = True
        taker.source.ack(taker.deliveries)
        await taker.until(lambda: taker.source.status.detail["paused"])
        await taker.nothing_held()
        taker.source.resume()
        await taker.have(200)
        assert len(set(taker.bodies)) == 200
        await taker.nothing_held()


async def test_what_an_operator_has_to_mend(devstack: Any, way: dict[str, Any]) -> None:
    missing, group = devstack.unique("missing"), devstack.group()
    async with consuming(**way, group=group, topic=missing) as taker:
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        await taker.fails_with(missing)
        await anyio.to_thread.run_sync(devstack.rocketmq.create_topic, missing)
        await taker.until(lambda: taker.source.status.link is Link.UP)
    if way["protocol"] == "grpc":  # the broker makes missing groups by itself, and its proxy does not
        nobody = devstack.unique("nobody")
        async with consuming(**way, group=nobody, topic=missing, heartbeat_interval=0.5) as taker:
            await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
            await taker.fails_with(f"group not found: {nobody}")
            await anyio.to_thread.run_sync(devstack.rocketmq.create_group, nobody)
            await taker.until(lambda: taker.source.status.link is Link.UP)
    async with consuming(**way, group=group, topic=missing, filter="n >", sql=True) as taker:
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        await taker.fails_with("Correct the filter")


async def test_sql_chooses_by_properties(devstack: Any, way: dict[str, Any]) -> None:
    if way.get("receive_by") == "pull":
        pytest.skip(
            "brokers filter what is pulled by SQL92 only with enablePropertyFilter=true, which is off by default"
        )
    topic, group, endpoints = devstack.topic(queues=1), devstack.group(), devstack.rocketmq.endpoints
    async with (
        consuming(**way, group=group, topic=topic, filter="n > 1 AND kind = 'x'", sql=True) as taker,
        sending(endpoints, topic) as send,
    ):
        taker.automatic = True
        for number, kind in ((1, "x"), (2, "y"), (3, "x"), (4, "x")):
            await send(b"%d" % number, properties=(("n", str(number)), ("kind", kind)))
        await taker.have(2)
        await taker.nothing_held()
        assert sorted(taker.bodies) == [b"3", b"4"]


@BOTH_LOOPS
async def test_tls(devstack: Any, tmp_path: Path) -> None:
    topic, group, rocketmq = devstack.topic(queues=1), devstack.group(), devstack.rocketmq
    ca = tmp_path / "ca.pem"
    ca.write_text(await anyio.to_thread.run_sync(ssl.get_server_certificate, (rocketmq.host, rocketmq.port)))
    tls = TlsOptions(ca_file=str(ca), server_name="localhost")
    async with (
        consuming(rocketmq.endpoints, group, topic, tls=tls) as taker,
        sending(rocketmq.endpoints, topic) as send,
    ):
        taker.automatic = True
        await send(b"sealed")
        await taker.have(1)
        await taker.nothing_held()
    async with consuming(rocketmq.endpoints, group, topic, tls=TlsOptions()) as taker:
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        await taker.fails_with("certificate")
