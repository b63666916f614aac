"""The connection: many requests at once, deadlines, peers that misbehave. The peers are sockets of the tests."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from spanbridge.core.errors import SinkUnavailable
from spanbridge.rocketmq import RocketmqOptions
from spanbridge.rocketmq.remoting import admin
from spanbridge.rocketmq.remoting.blocking import BlockingClient, ask_once
from spanbridge.rocketmq.remoting.call import Call, split_address
from spanbridge.rocketmq.remoting.client import RemotingClient
from spanbridge.rocketmq.remoting.codes import ResponseCode
from spanbridge.rocketmq.remoting.endpoint import RemotingEndpoint
from spanbridge.rocketmq.remoting.errors import FrameError, RemotingError, RemotingRefused, RemotingUnavailable
from spanbridge.rocketmq.remoting.frame import Frame, FrameDecoder, encode
from spanbridge.rocketmq.tls import TlsFiles
from tests.fakes import FakeReporter

pytestmark = pytest.mark.anyio
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ECHO: Call[str] = Call(what="echo", code=1, fields={"x": "1"}, read=lambda response: response.fields["x"])


@asynccontextmanager
async def peer(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server on loopback; its address."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, FrameError):
                await handle(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def requests(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    decoder = FrameDecoder()
    while data := await reader.read(65536):
        for frame in decoder.feed(data):
            yield frame


def response(request: Frame, **fields: str) -> bytes:
    return encode(Frame(code=0, opaque=request.opaque, flag=1, fields=fields))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for request in requests(reader):
        writer.write(response(request, **request.fields))


def numbered(number: int) -> Call[str]:
    return Call(what=f"echo {number}", code=1, fields={"x": str(number)}, read=lambda found: found.fields["x"])


async def test_answers_find_their_requests_in_whatever_order_they_come() -> None:
    async def backwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = []
        async for request in requests(reader):
            asked.append(request)
            if len(asked) == 20:
                writer.write(b"".join(response(one, **one.fields) for one in reversed(asked)))

    async with peer(backwards) as address, RemotingClient(address) as client:
        found = await asyncio.gather(*(client.ask(numbered(number)) for number in range(20)))
    assert found == [str(number) for number in range(20)]


async def test_a_request_without_an_answer_ends_alone() -> None:
    async def all_but_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first: Frame | None = None
        async for request in requests(reader):
            if first is None:
                first = request
            else:  # the first one's comes after its deadline: nobody waits for it
                writer.write(response(first, x="late") + response(request, **request.fields))

    async with peer(all_but_the_first) as address, RemotingClient(address) as client:
        with pytest.raises(RemotingUnavailable, match=r"no answer from RocketMQ at .* within 0.05 s") as caught:
            await client.ask(numbered(1), timeout=0.05)
        assert caught.value.reason == "timeout"
        assert await client.ask(numbered(2)) == "2"
        assert client.is_open


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", FrameError, "does not speak RocketMQ's remoting protocol"),
        (b"\x00\x00\x00\x06\x00\x00\x00\x02{]", FrameError, "not JSON"),
        (b"\x00\x00", RemotingUnavailable, "ended: closed by the peer"),
    ],
)
async def test_a_peer_that_breaks_off_fails_everything_in_flight(
    wrong: bytes, error: type[RemotingError], told: str
) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(wrong)
        await writer.drain()

    async with peer(broken) as address, RemotingClient(address) as client:
        failed = await asyncio.gather(*(client.ask(ECHO) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in failed] == [error] * 3
        assert len({id(one) for one in failed}) == 3
        assert told in str(await client.wait_ended())
        assert not client.is_open
        with pytest.raises(error, match=told):
            await client.ask(ECHO)


async def test_nobody_there_is_told_by_address() -> None:
    async with peer(echo) as address:
        pass
    with pytest.raises(RemotingUnavailable, match=f"no connection to RocketMQ at {address}") as caught:
        await RemotingClient(address).connect()
    assert caught.value.reason == "unavailable"
    with pytest.raises(RemotingUnavailable, match="no connection"):
        await asyncio.to_thread(ask_once, address, ECHO)
    idle = RemotingClient(address)
    with pytest.raises(RemotingUnavailable, match="not connected"):
        await idle.ask(ECHO)
    assert "not connected" in str(await idle.wait_ended())
    await idle.close()


async def test_closing_fails_what_is_in_flight_and_leaves_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with peer(silent) as address:
        client = RemotingClient(address)
        await client.connect()
        waiting = asyncio.create_task(client.ask(ECHO))
        cancelled = asyncio.create_task(client.ask(ECHO))
        await asyncio.sleep(0)
        cancelled.cancel()
        await client.close()
        await client.close()
        with pytest.raises(RemotingUnavailable, match="was closed by us"):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    gc.collect()  # what was never retrieved would warn here


async def test_refusals_are_one_line_with_the_code() -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for request in requests(reader):
            code = int(request.fields.get("x", "0"))
            writer.write(encode(request.response(code, remark="no\n\tat java.lang.Thread\x1b[31m" + "x" * 500)))

    async with peer(refuses) as address, RemotingClient(address) as client:
        with pytest.raises(RemotingRefused, match=r"refused to echo 16: no at java") as caught:
            await client.ask(numbered(16))
        assert (caught.value.code, caught.value.reason) == (ResponseCode.NO_PERMISSION, "no_permission")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
        with pytest.raises(RemotingRefused, match="code 12345") as unknown:
            await client.ask(numbered(12345))
        assert unknown.value.reason == "refused"
        with pytest.raises(RemotingUnavailable, match="stops and did not echo") as leaving:
            await client.ask(numbered(ResponseCode.GO_AWAY))
        assert leaving.value.reason == "go_away"
        with pytest.raises(FrameError, match="without what it should hold: KeyError"):
            await client.ask(admin.max_offset("t", 0))
        assert client.is_open


async def test_requests_of_the_server_are_handled_and_answered() -> None:
    heard: asyncio.Queue[Frame] = asyncio.Queue()

    async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode(Frame(code=40, opaque=5, flag=2)) + encode(Frame(code=307, opaque=6)))
        async for frame in requests(reader):
            heard.put_nowait(frame)

    seen: list[int] = []

    def handle(request: Frame) -> Frame:
        seen.append(request.code)
        return request.response(ResponseCode.REQUEST_CODE_NOT_SUPPORTED)

    async with peer(asks) as address, RemotingClient(address, on_request=handle):
        answered = await asyncio.wait_for(heard.get(), 10)
    assert seen == [40, 307]
    assert (answered.opaque, answered.is_response, answered.code) == (6, True, 3)
    assert heard.empty()


async def test_tls_is_verified() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("broker.example").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with peer(echo, server) as address:
        async with RemotingClient(address, tls=trusting, server_name="broker.example") as client:
            assert await client.ask(numbered(1)) == "1"
        for context in (trusting, ssl.create_default_context()):  # another name, another authority
            with pytest.raises(RemotingUnavailable, match="TLS: ") as caught:
                await RemotingClient(address, tls=context).connect()
            assert caught.value.reason == "tls"
    async with peer(echo) as address:
        with pytest.raises(RemotingUnavailable, match="no connection"):
            await RemotingClient(address, tls=trusting, timeout=5).connect()


async def test_a_peer_that_never_answers_the_handshake_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with peer(silent) as address:
        with pytest.raises(RemotingUnavailable, match=r"within 0.05 s") as caught:
            await RemotingClient(address, tls=ssl.create_default_context(), timeout=0.05).connect()
    assert caught.value.reason == "timeout"


async def test_the_blocking_client_tells_the_same() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def quiet(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    def ask(address: str, timeout: float) -> None:
        with BlockingClient(address, timeout=timeout) as client:
            client.ask(ECHO)

    async with peer(echo) as address:
        assert await asyncio.to_thread(ask_once, address, ECHO) == "1"
    async with peer(quiet) as address:
        with pytest.raises(RemotingUnavailable, match="no answer") as caught:
            await asyncio.to_thread(ask, address, 0.05)
        assert caught.value.reason == "timeout"
    async with peer(silent) as address:
        with pytest.raises(RemotingUnavailable, match="failed: "):
            await asyncio.to_thread(ask, address, 10)


@pytest.mark.parametrize(
    ("address", "place"), [("h:1", ("h", 1)), ("[::1]:65535", ("::1", 65535)), ("10.0.0.1:10911", ("10.0.0.1", 10911))]
)
def test_addresses(address: str, place: tuple[str, int]) -> None:
    assert split_address(address) == place


@pytest.mark.parametrize("address", ["", "h", ":1", "h:", "h:0", "h:65536", "h:x", "::1:8081", "[]:1", "[h]:1", "h:²"])
def test_no_addresses(address: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|no port"):
        split_address(address)


async def test_who_waits_for_a_connection_that_is_given_up_is_told_so() -> None:
    """It was not cancelled: a receiver or an acknowledgement has to go on."""

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with peer(busy) as address:
        endpoint = RemotingEndpoint(
            address,
            options=RocketmqOptions(endpoints=address),
            keys=None,
            tls=TlsFiles(None),
            reporter=FakeReporter(),
            on_change=None,
        )
        asking = asyncio.create_task(endpoint.ask(ECHO, "echo"))
        await asyncio.sleep(0)  # it begins to connect
        await endpoint.close()
        with pytest.raises(SinkUnavailable):
            await asking
