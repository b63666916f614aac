"""The admin server over real sockets, with a plain HTTP client and with bytes that are not HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from spanbridge.admin import AdminError, AdminServer
from spanbridge.admin.pages import ProfilePage
from spanbridge.core.events import Event, Severity
from spanbridge.core.health import Readiness, Reason

pytestmark = pytest.mark.anyio

READY = Readiness()
STATUS = {"name": "edge", "routes": [{"route": "a/{b}", "messages": 3}]}


class Events:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def report(self, event: Event) -> None:
        self.seen.append(event)


class Reply:
    """A parsed HTTP response."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}

    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def running(
    *,
    verdict: Readiness = READY,
    status: Callable[[], Mapping[str, Any]] = lambda: STATUS,
    metrics: Callable[[str], tuple[bytes, str]] | None = None,
    events: Events | None = None,
    host: str = "127.0.0.1",
    stuck: str | None = None,
    profile: ProfilePage | None = None,
    token: str | None = None,
) -> AsyncIterator[AdminServer]:
    server = AdminServer(
        host,
        0,
        readiness=lambda: verdict,
        status=status,
        metrics=metrics,
        liveness=lambda: stuck,
        profile=profile,
        token=token,
        reporter=events or Events(),
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def raw(server: AdminServer, request: bytes) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        return Reply(await asyncio.wait_for(reader.read(), 5))
    finally:
        writer.close()
        await writer.wait_closed()


async def get(
    server: AdminServer, path: str, *, method: str = "GET", headers: str = "", host: str = "localhost"
) -> Reply:
    request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
    return await raw(server, request.encode())


async def test_live() -> None:
    async with running() as server:
        reply = await get(server, "/livez")
    assert (reply.status, reply.json()) == (200, {"live": True})
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"


async def test_stuck_is_not_live_and_says_why() -> None:
    async with running(stuck="no message has moved for 300 s although RocketMQ answers") as server:
        reply = await get(server, "/livez")
    assert reply.status == 503
    assert reply.json() == {"live": False, "reason": "no message has moved for 300 s although RocketMQ answers"}


async def test_ready() -> None:
    async with running() as server:
        reply = await get(server, "/readyz?verbose")
    assert (reply.status, reply.json()) == (200, {"ready": True, "reasons": []})


async def test_not_ready_says_why() -> None:
    verdict = Readiness((Reason("probe_failed", "the last probe of RocketMQ failed: refused"),))
    async with running(verdict=verdict) as server:
        reply = await get(server, "/readyz")
    assert reply.status == 503
    assert reply.json() == {
        "ready": False,
        "reasons": [{"code": "probe_failed", "message": "the last probe of RocketMQ failed: refused"}],
    }


async def test_status() -> None:
    async with running() as server:
        reply = await get(server, "/status")
    assert (reply.status, reply.json()) == (200, STATUS)


async def test_status_shows_what_json_has_no_word_for_as_text() -> None:
    async with running(status=lambda: {"odd": {1, 2}.__class__, "broken": "\ud800"}) as server:
        reply = await get(server, "/status")
    assert reply.status == 200
    assert reply.json()["odd"] == "<class 'set'>"


async def test_metrics_negotiates() -> None:
    def metrics(accept: str) -> tuple[bytes, str]:
        return b"up 1\n", "application/openmetrics-text" if "openmetrics" in accept else "text/plain; version=0.0.4"

    async with running(metrics=metrics) as server:
        plain = await get(server, "/metrics")
        negotiated = await get(server, "/metrics", headers="Accept: application/openmetrics-text\r\n")
    assert (plain.body, plain.headers["content-type"]) == (b"up 1\n", "text/plain; version=0.0.4")
    assert negotiated.headers["content-type"] == "application/openmetrics-text"


async def test_metrics_turned_off() -> None:
    async with running() as server:
        reply = await get(server, "/metrics")
    assert reply.status == 404
    assert "prometheus = true" in reply.json()["hint"]


async def test_the_page_loads_nothing_from_elsewhere() -> None:
    async with running() as server:
        reply = await get(server, "/")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert b"http://" not in reply.body
    assert b"https://" not in reply.body


async def test_unknown_page_lists_the_pages() -> None:
    async with running() as server:
        reply = await get(server, "/healthz")
    assert reply.status == 404
    assert "/readyz" in reply.json()["pages"]


async def test_other_methods() -> None:
    async with running() as server:
        posted = await get(server, "/status", method="POST")
        headed = await get(server, "/status", method="HEAD")
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
    assert (headed.status, headed.body) == (200, b"")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_a_json_error(request_bytes: bytes) -> None:
    async with running() as server:
        reply = await raw(server, request_bytes)
        alive = await get(server, "/livez")
    assert reply.status == 400
    assert reply.json() == {"error": "the request is not valid HTTP/1.1"}
    assert alive.status == 200


@pytest.fixture
async def faults() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop was told of exceptions in the protocol: each would be a traceback in the log."""
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: found.append(context))
    yield found
    loop.set_exception_handler(before)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"HEAD / HTTP/2.0\r\n\r\n", 505),
        (b"HEAD / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        (b"POST / HTTP/0.9\r\nContent-Length: 3\r\n\r\nabc", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
        (b"GET /\r\n\r\n", 400),
        (b"HEAD /livez\r\n\r\n", 400),
        (b"HEAD / HTTP/20\r\n\r\n", 400),
        (b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
        (b"GET /livez HTTP/1.2\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /livez HTTP/1.0\r\n\r\n", 200),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n", 404),
        (b"HEAD /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            200,
        ),
    ],
)
async def test_odd_versions_and_methods(
    request_bytes: bytes, status: int, faults: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    events = Events()
    async with running(events=events) as server:
        reply = await raw(server, request_bytes)
        assert (await get(server, "/livez")).status == 200
    assert reply.status == status
    if request_bytes.startswith(b"HEAD ") and status in (200, 505):
        assert reply.body == b""
    elif reply.body:
        assert status == 200 or reply.json()["error"]
    assert faults == []
    assert [event for event in events.seen if event.severity >= Severity.WARNING] == []
    assert caplog.messages == []


async def test_oversized_headers() -> None:
    async with running() as server:
        reply = await raw(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 20000)
    assert reply.status == 431
    assert reply.json() == {"error": "the request is too large"}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9464", "[::1]:9464", "LocalHost:1"])
async def test_loopback_names(host: str) -> None:
    async with running() as server:
        assert (await get(server, "/livez", host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:9464"])
async def test_other_names_are_refused_on_loopback(host: str) -> None:
    async with running() as server:
        reply = await get(server, "/status", host=host)
    assert reply.status == 403
    assert "error" in reply.json()


async def test_open_to_others_warns_and_takes_any_name() -> None:
    events = Events()
    async with running(host="0.0.0.0", events=events) as server:
        reply = await get(server, "/livez", host="gateway.example:9464")
    assert reply.status == 200
    warnings = [event.text() for event in events.seen if event.severity is Severity.WARNING]
    assert warnings == [
        "admin server on 0.0.0.0 is open to other machines without TLS: health and metrics to all, the other pages are "
        "refused: set `token` in [admin]"
    ]


async def test_a_page_that_fails_is_reported_and_the_server_stays() -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("hunter2")

    events = Events()
    async with running(status=broken, events=events) as server:
        reply = await get(server, "/status")
        alive = await get(server, "/livez")
    assert reply.status == 500
    assert b"hunter2" not in reply.body
    assert alive.status == 200
    failed = events.seen[-1]
    assert (failed.name, failed.labels()) == ("admin.page_failed", {"path": "/status"})
    assert "RuntimeError: hunter2" in failed.text()


async def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = AdminServer("127.0.0.1", port, readiness=Readiness, status=dict, reporter=Events())
        with pytest.raises(AdminError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: .*in use"):
            await server.start()
        await server.stop()


async def test_stop_closes_kept_connections_and_can_be_repeated() -> None:
    async with running() as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        port = server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"}\n"), 5)
        await server.stop()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await server.stop()
    with pytest.raises(OSError, match=r"(?i)refused|connect"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_several_requests_on_one_connection_and_in_one_segment() -> None:
    async with running() as server:
        first = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(first + first + last)
        received = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
    assert received.count(b"HTTP/1.1 200") == 2
    assert received.count(b"HTTP/1.1 404") == 1


async def test_a_request_that_comes_byte_by_byte() -> None:
    async with running() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        reply = Reply(await asyncio.wait_for(reader.read(), 5))
        writer.close()
        await writer.wait_closed()
    assert reply.status == 200


async def test_a_body_is_not_waited_for() -> None:
    async with running() as server:
        reply = await get(server, "/status", method="POST", headers="Content-Length: 1000000000\r\n")
    assert (reply.status, reply.headers["connection"]) == (405, "close")


async def test_a_peer_that_leaves_in_the_middle() -> None:
    async with running() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /liv")
        writer.write_eof()
        writer.close()
        await writer.wait_closed()
        assert (await get(server, "/livez")).status == 200


async def test_of_too_many_connections_the_one_idle_longest_goes() -> None:
    async with running() as server:
        connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(64)]
        _, first = connections[0]
        first.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(connections[0][0].readuntil(b"}\n"), 5)
        assert (await get(server, "/livez")).status == 200  # a probe gets through all the same
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(connections[1][0].read(), 5) == b""
        first.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await asyncio.wait_for(connections[0][0].readuntil(b"}\n"), 5)
        for _, writer in connections:
            writer.close()


async def test_a_peer_that_asks_and_does_not_read_is_not_answered_for_ever() -> None:
    made = 0

    def metrics(_: str) -> tuple[bytes, str]:
        nonlocal made
        made += 1
        return b"#" * 100_000, "text/plain"

    one = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with running(metrics=metrics) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(one * 1000)
        for _ in range(20):  # others are answered in between
            assert (await get(server, "/livez")).status == 200
        assert made < 200  # 20 MB: what the sockets hold between them, not what was asked for
        received = 0
        while received < 1000 * 100_000:
            received += len(await asyncio.wait_for(reader.read(1 << 20), 5))
        assert made == 1000
        writer.close()


async def test_a_target_in_absolute_form_names_the_host() -> None:
    async with running() as server:
        near = await get(server, "http://localhost:9464/livez?x", host="evil.example")
        far = await get(server, "http://evil.example/livez")
        root = await get(server, "http://localhost")
    assert (near.status, far.status, root.status) == (200, 403, 200)


def test_aiohttp_is_not_loaded() -> None:
    code = "import sys, spanbridge.admin, spanbridge.admin.protocol; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
