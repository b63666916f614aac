"""Who may see what of the admin server, and that no stranger takes more than a fixed share of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from spanbridge.admin import AdminServer, Profiles, protocol
from spanbridge.config import examine

from .test_server import Events, Reply, get, running

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery"
FREE = ("/livez", "/readyz", "/metrics")
GUARDED = ("/", "/status", "/debug/pprof/profile")


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}\r\n"


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


@asynccontextmanager
async def served(
    *, host: str = "0.0.0.0", token: str | None = TOKEN, events: Events | None = None
) -> AsyncIterator[AdminServer]:
    async def make(_seconds: float) -> bytes:
        return b"profile"

    page = Profiles(make)
    async with running(
        host=host, token=token, events=events, metrics=lambda _: (b"up 1\n", "text/plain"), profile=page
    ) as server:
        yield server


async def test_health_and_metrics_are_for_all() -> None:
    for host, token in (("127.0.0.1", None), ("127.0.0.1", TOKEN), ("0.0.0.0", None), ("0.0.0.0", TOKEN)):
        async with served(host=host, token=token) as server:
            assert [(await get(server, path)).status for path in FREE] == [200, 200, 200]
            assert (await get(server, "/livez", headers=bearer("wrong"))).status == 200


@pytest.mark.parametrize("path", GUARDED)
async def test_other_pages_want_the_token(path: str) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        async with served(host=host) as server:
            without = await get(server, path)
            assert without.status == 401
            assert without.headers["www-authenticate"].startswith("Bearer, Basic realm=")
            assert (await get(server, path, headers=bearer(TOKEN))).status == 200
            assert (await get(server, path, headers=basic("anybody", TOKEN))).status == 200


@pytest.mark.parametrize("path", GUARDED)
async def test_without_a_token_they_are_for_this_machine_alone(path: str) -> None:
    async with served(token=None) as server:
        refused = await get(server, path, headers=bearer("anything"))
        assert refused.status == 403
        assert refused.json() == {
            "error": "it needs a token where other machines can ask",
            "hint": "set `token` in [admin]",
        }
    async with served(host="127.0.0.1", token=None) as server:
        assert (await get(server, path)).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: \r\n",
        "Authorization: Bearer\r\n",
        bearer(""),
        bearer(TOKEN[:-1]),
        bearer(TOKEN.upper()),
        bearer(f"{TOKEN}\x80"),
        f"Authorization: {TOKEN}\r\n",
        f"Authorization: Digest {TOKEN}\r\n",
        basic(TOKEN, ""),
        basic("user", "wrong"),
        "Authorization: Basic \xe9\r\n",
        "Authorization: Basic =\r\n",
        f"Authorization: Basic {base64.b64encode(TOKEN.encode()).decode()}\r\n",
    ],
)
async def test_what_is_not_the_token_is_refused(header: str) -> None:
    events = Events()
    async with served(events=events) as server:
        request = f"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n".encode("latin-1")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        reply = Reply(await asyncio.wait_for(reader.read(), 5))
        writer.close()
    assert reply.status == 401
    assert TOKEN.encode() not in reply.body
    assert TOKEN not in "".join(f"{event!r}{event.text()}" for event in events.seen)


async def test_a_wrong_token_is_reported_and_none_is_not() -> None:
    events = Events()
    async with served(events=events) as server:
        await get(server, "/status")
        await get(server, "/status", headers=bearer("guess"))
    (denied,) = [event for event in events.seen if event.name == "admin.denied"]
    assert denied.labels() == {"path": "/status"}
    assert denied.text() == "127.0.0.1 asked for admin page /status with a wrong token; answered 401"


async def test_no_secret_shows_in_the_server() -> None:
    async with served() as server:
        assert TOKEN not in f"{server.status()}{server._access!r}{server._pages!r}"


# -- what a stranger takes --------------------------------------------------------------------------------------------


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes."""
    received = b""
    try:
        while part := await asyncio.wait_for(reader.read(1 << 16), 20):
            received += part
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_request_that_never_ends_is_not_waited_for(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_IDLE_TIMEOUT", 0.2)
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        assert await ended(reader) == b""
        writer.close()


async def test_bytes_that_trickle_in_buy_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_IDLE_TIMEOUT", 0.3)
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")

        async def trickle() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert await ended(reader) == b""
        trickling.cancel()
        writer.close()


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_IDLE_TIMEOUT", 0.3)
    async with running(metrics=lambda _: (bytes(16 << 20), "text/plain")) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            while not server._connections:
                await asyncio.sleep(0.01)
            while server._connections:
                await asyncio.sleep(0.01)
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(3000)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + b"a" * 20_000,
        b"\r\n" * 20_000,
    ],
)
async def test_what_is_too_large_is_refused_and_forgotten(request_bytes: bytes) -> None:
    async with served() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_bytes)
        writer.write_eof()
        received = await ended(reader)
        writer.close()
        assert received == b"" or Reply(received).status in (400, 431)
        assert (await get(server, "/livez")).status == 200


async def test_profiles_under_way_keep_no_probe_out() -> None:
    never = asyncio.Event()

    async def make(_seconds: float) -> bytes:
        await never.wait()
        return b""

    async with running(profile=Profiles(make)) as server:
        connections = []
        for _ in range(80):
            connections.append(await asyncio.open_connection("127.0.0.1", server.port))
            connections[-1][1].write(b"GET /debug/pprof/profile HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await get(server, "/livez")).status == 200
        assert len(server._connections) <= 64
        never.set()
        for _, writer in connections:
            writer.close()


# -- the configuration ------------------------------------------------------------------------------------------------


BASE = """
mqtt.url = "mqtt://localhost"
rocketmq.endpoints = "localhost:8081"
routes = [{ filter = "a", topic = "a" }]
"""


@pytest.mark.parametrize(
    ("admin", "said"),
    [
        ("", None),
        ('host = "0.0.0.0"\nallow_remote = true', "since there is no token"),
        ('host = "0.0.0.0"\nallow_remote = true\ntoken = "t0ken"', "who listens on the way"),
        ('token = "t0ken"', None),
        ('token = ""', "is empty, or has other characters"),
        ('token = "a b"', "is empty, or has other characters"),
        ('token = "tök"', "is empty, or has other characters"),
    ],
)
def test_check_tells_of_an_exposed_server(admin: str, said: str | None, tmp_path: Path) -> None:
    file = tmp_path / "spanbridge.toml"
    file.write_text(f"{BASE}[admin]\n{admin}\n")
    report = examine(file, {})
    found = [f"{one.path}: {one.message}" for one in (*report.errors, *report.warnings) if "admin" in one.path]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
    assert not any(secret in str(found) for secret in ("t0ken", "a b", "tök"))


def test_the_token_may_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "spanbridge.toml"
    (tmp_path / "token").write_text("t0ken\n")
    for text, environ in (
        ('token = "file:token"', {}),
        ('token = "${T}"', {"T": "t0ken"}),
        ("", {"SPANBRIDGE__ADMIN__TOKEN": "t0ken"}),
    ):
        file.write_text(f"{BASE}[admin]\n{text}\n")
        config = examine(file, environ).config
        assert config is not None
        assert config.admin.token is not None
        assert config.admin.token.get_secret_value() == "t0ken"
        assert "t0ken" not in repr(config)
