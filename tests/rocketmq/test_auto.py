"""``protocol = "auto"``: proxies and name servers are told apart, and messages taken before are sent all the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from spanbridge.core.errors import SinkMisconfigured, SinkUnavailable
from spanbridge.core.message import Destination
from spanbridge.core.tls import TlsOptions
from spanbridge.ports import Link
from spanbridge.rocketmq import (
    ClusterProtocol,
    ConsumerOptions,
    RocketmqOptions,
    ask_protocol,
    create_consumer,
    create_sink,
)
from spanbridge.rocketmq.auto_consumer import AutoConsumer
from spanbridge.rocketmq.events import ProtocolFound, ProtocolUnknown
from spanbridge.rocketmq.remoting.frame import Frame, encode
from spanbridge.rocketmq.tls import TlsFiles
from tests.fakes import FakeReporter

from .consuming import consuming
from .fake_proxy import FakeProxy
from .remoting.fake_cluster import fake_cluster, refuse

pytestmark = pytest.mark.anyio

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WHOLE = Destination("t", tag="x", keys=("k1", "k2"), properties=(("mqtt.topic", "a/ü"),))


def options(endpoints: str, **more: Any) -> RocketmqOptions:
    return RocketmqOptions(endpoints=endpoints, protocol="auto", **more)


@asynccontextmanager
async def auto(
    endpoints: str, recorder: FakeReporter | None = None, known: ClusterProtocol | None = None, **more: Any
) -> AsyncIterator[Any]:
    sink = create_sink(options(endpoints, **more), recorder or FakeReporter(), known)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()
        assert sink.status.link is Link.CLOSED


@asynccontextmanager
async def peer(answer: bytes | None) -> AsyncIterator[str]:
    """A server that is none of RocketMQ's: it says this to whatever it reads, or nothing."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            if answer is not None:
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_proxy_is_told_from_a_name_server() -> None:
    async with FakeProxy() as proxy, fake_cluster("a") as cluster:
        assert await ask_protocol(options(proxy.address)) == ("grpc", proxy.address)
        assert await ask_protocol(options(cluster.name_server)) == ("remoting", cluster.name_server)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, None])
async def test_others_are_neither(answer: bytes | None) -> None:
    async with peer(answer) as address, fake_cluster("a") as cluster:
        settings: dict[str, Any] = {"request_timeout": 0.2}
        with pytest.raises(SinkUnavailable, match="neither as a gRPC proxy nor as a name server"):
            await ask_protocol(options(address, **settings))
        assert await ask_protocol(options(f"{address};{cluster.name_server}", **settings)) == (
            "remoting",
            cluster.name_server,
        )


async def test_tls_that_the_peer_does_not_speak_is_for_an_operator() -> None:
    async with peer(b"no handshake") as address:
        with pytest.raises(SinkMisconfigured, match="TLS") as caught:
            await ask_protocol(options(address, tls=TlsOptions()))
        assert caught.value.reason == "tls"


async def test_messages_taken_before_are_sent_to_a_proxy() -> None:
    async with FakeProxy() as proxy:
        recorder = FakeReporter()
        sink = create_sink(options(proxy.address), recorder)
        born_ns = 1_700_000_000_123_000_000
        kinds = [WHOLE, Destination("t", group="plant/ü"), Destination("t", delivery_timestamp_ms=2_000_000_000_000)]
        heads = [sink.head(one) for one in kinds]
        early = [head.encode(b"early", PARENT, [("n", "1")], born_ns) for head in heads]
        await sink.start()
        for head, message in zip(heads, early, strict=True):
            later = head.encode(b"later", PARENT, [("n", "1")], born_ns)
            await sink.send("t", head.partition, [message])
            late = head.encode(b"later", PARENT, [("n", "1")], born_ns)
            await sink.send("t", head.partition, [later, late])
        await sink.close()
        sent = [message for batch in proxy.batches for message in batch]
        assert len(sent) == 9
        for start in range(0, 9, 3):
            first, *others = sent[start : start + 3]
            assert first.body == b"early"
            for other in others:
                assert dict(first.user_properties) == dict(other.user_properties)
                one, two = first.system_properties, other.system_properties
                assert one.message_id != two.message_id
                for message in (one, two):
                    message.ClearField("message_id")
                assert one == two
        found = [event for event in recorder.events if isinstance(event, ProtocolFound)]
        assert [(event.endpoint, event.protocol) for event in found] == [(proxy.address, "grpc")]
        assert "is a proxy (gRPC)" in found[0].text()


async def test_messages_taken_before_are_sent_to_brokers() -> None:
    async with fake_cluster("a", t=8) as cluster:
        recorder = FakeReporter()
        sink = create_sink(options(cluster.name_server, ordered_partitions=8), recorder)
        head = sink.head(Destination("t", group="g"))
        early = [head.encode(b"%d" % number, PARENT, (), time.time_ns()) for number in range(2)]
        await sink.start()
        await sink.send("t", head.partition, early)
        await sink.send("t", head.partition, [head.encode(b"2", PARENT, (), time.time_ns())])
        assert sink.status.detail["protocol"] == "remoting"
        await sink.close()
        first, second = cluster.brokers[0].sends()
        assert first.fields["e"] == second.fields["e"] == str(head.partition)
        assert first.body == b"".join(message[4:] for message in early)


async def test_a_peer_that_is_away_is_asked_again() -> None:
    async with fake_cluster("a", t=1) as cluster, FakeProxy() as once:
        address = once.address
        await once.stop()
        recorder = FakeReporter()
        async with auto(address, recorder) as sink:
            with pytest.raises(SinkUnavailable):
                await sink.probe()
            head = sink.head(WHOLE)
            with pytest.raises(SinkUnavailable):
                await sink.send("t", head.partition, [head.encode(b"x", "", (), time.time_ns())])
            status = sink.status
            assert status.link is Link.BACKOFF
            assert address in (status.last_error or "")
            assert any(isinstance(event, ProtocolUnknown) for event in recorder.events)
            async with FakeProxy(once.port), asyncio.timeout(30):
                while sink.status.link is not Link.UP:
                    await asyncio.sleep(0.05)
            assert cluster.asked == []


async def test_what_waits_for_an_answer_is_told_when_the_sink_closes() -> None:
    """As a reload does it, which takes another cluster while the former one is silent."""
    async with peer(None) as address:
        sink = create_sink(options(address), FakeReporter())
        await sink.start()
        head = sink.head(WHOLE)
        waiting = asyncio.create_task(sink.send("t", head.partition, [head.encode(b"x", "", (), time.time_ns())]))
        while sink.status.link is Link.IDLE:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        await sink.close()
        with pytest.raises(SinkUnavailable, match="closed"):
            await waiting


async def test_what_was_found_is_kept_for_the_next_sink() -> None:
    async with fake_cluster("a", t=1) as cluster, FakeProxy() as proxy:
        known = ClusterProtocol()
        async with auto(cluster.name_server, known=known) as sink:
            await sink.probe()
        assert known.found == "remoting"
        async with auto(proxy.address, known=known, request_timeout=0.5) as sink:  # not asked: it is no name server
            with pytest.raises(SinkUnavailable):
                await sink.probe()
        assert known.found == "remoting"


async def test_what_a_broker_refuses_is_remoting_as_well() -> None:
    """A name server's address was meant; the producer says so."""
    request = encode(refuse(3, "not supported")(Frame(code=105, opaque=1)) or Frame(code=0, opaque=1))
    async with peer(request) as address:
        assert (await ask_protocol(options(address)))[0] == "remoting"


async def test_a_consumer_begins_when_the_proxy_is_there() -> None:
    async with FakeProxy() as proxy:
        await proxy.stop()
        async with consuming(proxy.address, "g", "t", protocol="auto") as taker:
            await taker.fails_with(proxy.address)
            assert (taker.source.unacked, taker.source.held, taker.source.held_bytes) == (0, 0, 0)
            assert taker.source.status.link is Link.BACKOFF
            await proxy.start()
            proxy.put(b"1", b"2")
            deliveries = await taker.have(2)
            taker.source.ack(deliveries)
            await taker.nothing_held()
        assert len(proxy.acks) == 2


async def test_a_consumer_is_closed_while_it_looks() -> None:
    async with peer(None) as address, consuming(address, "g", "t", protocol="auto") as taker:
        taker.source.pause()
        await taker.source.stop_intake()
        await taker.source.give_back()
        assert taker.source.status.link in {Link.IDLE, Link.CONNECTING}


async def test_a_consumer_that_is_closed_as_the_answer_comes_does_not_begin() -> None:
    made: list[Any] = []
    known = ClusterProtocol()
    known.found = "remoting"

    class Made:
        async def run(self, deliver: Any, released: Any) -> None:
            made.append(self)

    source = AutoConsumer(
        ConsumerOptions(cluster=options("127.0.0.1:1"), group="g", topic="t"),
        FakeReporter(),
        known,
        lambda _: cast("Any", Made()),
    )
    running = asyncio.create_task(source.run(lambda _: None, lambda: None))
    await asyncio.sleep(0)
    looking = source._search._looking
    assert looking is not None

    async def close() -> None:
        await looking
        await source.close()

    await asyncio.gather(running, close())
    assert not made, "nobody would close it"


@pytest.mark.parametrize("protocol", ["grpc", "remoting"])
async def test_a_client_that_is_closed_while_it_reads_its_certificates_does_not_begin(protocol: Any) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def load(_: TlsFiles) -> bool:
        reading.set()
        return go_on.wait(60)

    cluster = RocketmqOptions(endpoints="127.0.0.1:1", protocol=protocol)
    source = create_consumer(ConsumerOptions(cluster=cluster, group="g", topic="t"), FakeReporter())
    before = asyncio.all_tasks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TlsFiles, "load", load)
        running = asyncio.create_task(source.run(lambda _: None, lambda: None))
        await asyncio.to_thread(reading.wait, 60)
        closing = asyncio.create_task(source.close())
        await asyncio.sleep(0)
        await closing
        go_on.set()
        await running
    assert source.status.link is Link.CLOSED
    assert asyncio.all_tasks() == before, "nobody would end what it has begun"
