"""Connections of the producer: those that do not come about, that go silent, that end, and what is under way then."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from spanbridge.core.errors import SinkMisconfigured, SinkUnavailable
from spanbridge.core.message import Destination
from spanbridge.core.tls import TlsOptions
from spanbridge.devstack import FaultProxy
from spanbridge.ports import Link
from spanbridge.rocketmq.grpc.http2.dialler import Dialler
from spanbridge.rocketmq.grpc.http2.errors import unconnected
from spanbridge.rocketmq.grpc.http2.frames import FrameKind, frame, settings
from tests.fakes import FakeReporter

from .fake_proxy import FakeProxy
from .test_peers import IMPATIENT, failing, make, sink_to, until
from .test_tls import Files

pytestmark = pytest.mark.anyio

BIG = 3 * 1024 * 1024


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def server(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """A TCP server that does as it is told; its address."""
    writers: list[asyncio.StreamWriter] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)

    listening = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()
        await listening.wait_closed()
        await asyncio.sleep(0)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def another_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read(-1)


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy that stops."""
    writer.write(settings({}) + frame(FrameKind.GOAWAY, 0, 0, bytes(8)))
    await reader.read(-1)


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (silent, "it takes connections and does not answer"),
        (another_protocol, "it does not speak gRPC. Is this the port of RocketMQ's proxy?"),
        (closing, "it closed the connection"),
        (leaving, "it is going away"),
    ],
    ids=["silent", "another protocol", "closing", "leaving"],
)
async def test_what_is_no_proxy_is_told_in_plain_words(serve: Any, words: str) -> None:
    async with (
        server(serve) as address,
        sink_to(address, connect_timeout=IMPATIENT, request_timeout=10.0, attempts=1) as sink,
    ):
        error = await failing(sink)
        assert isinstance(error, SinkUnavailable)
        assert str(error) == f"RocketMQ at {address}, route of topic 't': UNAVAILABLE ({words})."
        assert error.reason == "unavailable"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused, nothing listens there"),
        (OSError("Multiple exceptions: [Errno 111] x ('::1'), [Errno 111] x ('1.2')"), "connection refused, nothing"),
        (OSError(errno.EHOSTUNREACH, "x"), "there is no way to that host"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the name does not resolve"),
        (UnicodeError("label too long"), "the name does not resolve"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "it closed the connection"),
        (OSError(errno.EMFILE, "x"), "Too many open files"),
    ],
)
def test_why_there_is_no_connection(error: Exception, words: str) -> None:
    failure = unconnected(error)
    assert words in str(failure)
    assert not failure.tls


async def test_no_tls_on_that_port(files: Files) -> None:
    async with FakeProxy() as proxy, sink_to(proxy, tls=TlsOptions(ca_file=files.ca), attempts=1) as sink:
        error = await failing(sink)
    assert error.reason == "tls"
    assert "there is no TLS on this port" in str(error)


async def test_a_certificate_is_not_looked_at_where_one_does_not_want_to(files: Files) -> None:
    async with FakeProxy(tls=files.server()) as proxy, sink_to(proxy, tls=TlsOptions(verify=False)) as sink:
        await sink.send("t", *make(sink))
    assert proxy.bodies == [b"0"]


@pytest.fixture
def locked(files: Files, tmp_path: Path) -> Path:
    """The client's key, under the password "pass-phrase"."""
    key = load_pem_private_key(Path(files.key).read_bytes(), None)
    path = tmp_path / "locked.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass-phrase")))
    return path


async def test_a_key_under_a_password(files: Files, locked: Path) -> None:
    tls = TlsOptions(ca_file=files.ca, server_name="localhost", cert_file=files.cert, key_file=str(locked))
    async with FakeProxy(tls=files.server(mutual=True)) as proxy:
        async with sink_to(proxy, tls=replace(tls, key_password="pass-phrase")) as sink:
            await sink.send("t", *make(sink))
        assert proxy.bodies == [b"0"]
        with pytest.raises(SinkMisconfigured, match=r"locked\.key cannot be used: .* another password"):
            async with sink_to(proxy, tls=tls):
                pass


@pytest.fixture
def front() -> Iterator[Callable[[FakeProxy], FaultProxy]]:
    """What passes on connections to a proxy, or does not."""
    with contextlib.ExitStack() as stack:
        yield lambda proxy: stack.enter_context(FaultProxy("127.0.0.1", proxy.port))


async def test_a_peer_whose_packets_are_lost_is_noticed_and_found_again(front: Any) -> None:
    recorder = FakeReporter()
    options: dict[str, Any] = {"reporter": recorder, "request_timeout": IMPATIENT, "connect_timeout": IMPATIENT}
    async with FakeProxy() as proxy:
        line = front(proxy)
        async with sink_to(line.endpoints, follow_routes=False, **options) as sink:
            await sink.send("t", *make(sink))
            await until(lambda: sink.status.detail["telemetry_stream"])
            line.blackhole()
            # Nobody sends anything: a heartbeat finds it.
            await until(lambda: "rocketmq.channel.replaced" in recorder.names())
            assert sink.status.link is Link.BACKOFF
            await until(lambda: not sink.status.detail["telemetry_stream"])
            line.resume()
            await until(lambda: sink.status.detail["telemetry_stream"])
            await sink.send("t", *make(sink))
            assert sink.status.link is Link.UP


async def test_a_peer_that_does_not_read_ends_by_deadline(front: Any) -> None:
    options: dict[str, Any] = {"request_timeout": 1.0, "attempts": 1, "heartbeat_interval": 30.0}
    async with FakeProxy() as proxy:
        line = front(proxy)
        async with sink_to(line.endpoints, follow_routes=False, **options) as sink:
            await sink.send("t", *make(sink))
            line.hang()
            batch = [sink.head(Destination("t")).encode(bytes(BIG), "", (), 1)]
            sends = [asyncio.get_running_loop().create_task(sink.send("t", -1, batch)) for _ in range(8)]
            results = await asyncio.gather(*sends, return_exceptions=True)
            reasons = {getattr(result, "reason", None) for result in results}
            # Calls that had not begun when the connection was given up are told so.
            assert {"deadline_exceeded"} <= reasons <= {"deadline_exceeded", "cancelled"}
            line.resume()
            async with asyncio.timeout(20):
                while len(proxy.bodies) < 2:
                    with contextlib.suppress(SinkUnavailable):
                        await sink.send("t", *make(sink))


async def test_a_window_of_large_payloads(front: Any) -> None:
    async with FakeProxy() as proxy, sink_to(proxy, request_timeout=60.0) as sink:
        bodies = [bytes((n,)) * BIG for n in range(8)]
        head = sink.head(Destination("t"))
        await asyncio.gather(*(sink.send("t", -1, [head.encode(body, "", (), 1)]) for body in bodies))
        assert sorted(proxy.bodies) == bodies


async def test_no_more_calls_at_once_than_the_proxy_takes() -> None:
    proxy = FakeProxy()
    proxy.most_streams = 3  # one is the telemetry stream
    async with proxy, sink_to(proxy, request_timeout=30.0, heartbeat_interval=30.0) as sink:
        await sink.send("t", *make(sink))
        await until(lambda: sink.status.detail["telemetry_stream"])
        proxy.holds = asyncio.Event()
        sends = [asyncio.get_running_loop().create_task(sink.send("t", *make(sink))) for _ in range(10)]
        await until(lambda: proxy.count("SendMessage") == 3)
        await asyncio.sleep(0.1)
        assert proxy.count("SendMessage") == 3
        proxy.holds.set()
        await asyncio.gather(*sends)
        assert len(proxy.bodies) == 11


async def test_a_proxy_that_says_goodbye_is_let_finish() -> None:
    async with FakeProxy() as proxy, sink_to(proxy, request_timeout=30.0, attempts=1) as sink:
        await sink.send("t", *make(sink))
        await until(lambda: sink.status.detail["telemetry_stream"])
        proxy.holds = asyncio.Event()
        sending = asyncio.get_running_loop().create_task(sink.send("t", *make(sink)))
        await until(lambda: proxy.count("SendMessage") == 2)
        stopping = asyncio.get_running_loop().create_task(proxy.stop(20.0))
        await until(lambda: not sink.status.detail["telemetry_stream"])
        proxy.holds.set()
        await sending
        assert len(proxy.bodies) == 2
        await stopping
        await proxy.start()
        await until(lambda: sink.status.link is Link.UP and sink.status.detail["telemetry_stream"])


async def test_replaced_connections_are_closed(front: Any) -> None:
    async with FakeProxy() as proxy:
        line = front(proxy)
        async with sink_to(line.endpoints, follow_routes=False) as sink:
            for _ in range(5):
                await sink.send("t", *make(sink))
                sink._cluster.endpoint(line.endpoints).replace("test")
            await sink.send("t", *make(sink))
            await until(lambda: line.connections == 1)
        await until(lambda: line.connections == 0)


async def test_a_fault_of_ours_ends_one_attempt_to_connect() -> None:
    faults: list[Exception] = [ValueError("oops")]

    def context() -> None:
        if faults:
            raise faults.pop()

    async with FakeProxy() as proxy:
        dialler = Dialler(proxy.address, context=context, server_name=None, timeout=30.0)
        with pytest.raises(ValueError, match="oops"):
            await dialler.connection(30.0)
        assert (await dialler.connection(30.0)).usable
        await dialler.close()
