"""The gateway's own profile: over its admin server, with stages and routes, for those who may have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import ExportProfilesServiceRequest

import spanbridge
from spanbridge.admin import AdminServer, Profiles
from spanbridge.app.profiler import _route
from spanbridge.core.events import Event
from spanbridge.core.health import Readiness
from spanbridge.core.protobuf import varint
from spanbridge.profiling import Busy, NotProfiled, ProfilerService, stage
from spanbridge.uplink.intake import Intake
from spanbridge_profiling import Frame
from tests.profiling.programs import burn
from tests.profiling.reading import read_pprof

pytestmark = pytest.mark.anyio

ROOT = spanbridge.__file__.removesuffix("__init__.py")


class Events:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def report(self, event: Event) -> None:
        self.seen.append(event)


@asynccontextmanager
async def profiler(**options: Any) -> AsyncIterator[ProfilerService]:
    given: dict[str, Any] = {"rate": 250, "peeks": {}} | options
    service = ProfilerService(Events(), **given)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
        await service.stop()


@asynccontextmanager
async def served(make: Any) -> AsyncIterator[str]:
    page = Profiles(make) if make is not None else None
    server = AdminServer("127.0.0.1", 0, readiness=Readiness, status=dict, reporter=Events(), profile=page)
    await server.start()
    try:
        yield f"{server.url}/debug/pprof/profile"
    finally:
        await server.stop()


async def get(url: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


def encode_all() -> None:
    """Work of the gateway's core, called by nobody else: its stage is that of the code itself."""
    for number in range(200):
        varint(number << 20)


async def keep_busy(stop: asyncio.Event, work: Callable[[], None]) -> None:
    while not stop.is_set():
        work()
        await asyncio.sleep(0)


async def test_a_profile_over_http_names_the_stage_that_works() -> None:
    stop = asyncio.Event()
    async with profiler() as service, served(service.profile) as url:
        busy = asyncio.create_task(keep_busy(stop, encode_all))
        status, body, headers = await get(f"{url}?seconds=1")
        stop.set()
        await busy
        assert service.status()["samples_now"] is False
        assert service.status()["samples"] > 10
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    found = read_pprof(body)
    cpu: dict[str, int] = {}
    for sample in found.samples:
        if any(frame[0] == "encode_all" for frame in sample.frames):
            name = sample.labels["spanbridge.stage"]
            cpu[name] = cpu.get(name, 0) + sample.values[1]
    assert cpu["core"] > 0.5 * sum(cpu.values())
    assert set(cpu) <= {"core", "runtime"}


async def test_one_profile_at_a_time() -> None:
    async with profiler() as service, served(service.profile) as url:
        first = asyncio.create_task(get(f"{url}?seconds=60"))
        while not service.status()["samples_now"]:
            await asyncio.sleep(0.01)
        status, body, _ = await get(f"{url}?seconds=1")
        assert (status, b"already" in body) == (409, True)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert service.status()["samples_now"] is False


@pytest.mark.parametrize("seconds", ["0", "-1", "61", "nan", "x", ""])
async def test_the_length_is_bounded(seconds: str) -> None:
    async with served(nothing) as url:
        assert (await get(f"{url}?seconds={seconds}"))[0] == 400


async def nothing(_seconds: float) -> bytes:
    return b"profile"


async def test_how_to_ask_for_one() -> None:
    async with served(nothing) as url:
        assert (await get(url))[:2] == (200, b"profile")
        assert (await get(url, "HEAD"))[0] == 405
        assert (await get(url, "POST"))[0] == 405
    async with served(None) as url:
        status, body, _ = await get(url)
        assert (status, b"[profiling]" in body) == (404, True)


@pytest.mark.parametrize(("fault", "status"), [(Busy("x"), 409), (NotProfiled("x"), 503), (ValueError("x"), 500)])
async def test_what_goes_wrong_is_told(fault: Exception, status: int) -> None:
    async def make(_seconds: float) -> bytes:
        raise fault

    async with served(make) as url:
        assert (await get(url))[0] == status


async def test_other_pages_are_answered_meanwhile_and_the_connection_is_kept() -> None:
    go = asyncio.Event()

    async def make(_seconds: float) -> bytes:
        await go.wait()
        return b"profile"

    async with served(make) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        request = b"GET /debug/pprof/profile HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(request + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await get(url.replace("/debug/pprof/profile", "/livez")))[0] == 200
        go.set()
        answers = await reader.read()
        assert answers.count(b"HTTP/1.1 200") == 2
        assert answers.index(b"profile") < answers.index(b'"live": true')
        writer.close()
        await writer.wait_closed()


async def test_profiles_are_pushed_with_stages() -> None:
    pushed: list[tuple[bytes, int]] = []
    arrived = asyncio.Event()

    async def push(body: bytes, count: int) -> None:
        pushed.append((body, count))
        arrived.set()

    stop = asyncio.Event()
    async with profiler(push=push, interval=0.2, resource={"service.name": "edge"}, version="1") as service:
        busy = asyncio.create_task(keep_busy(stop, encode_all))
        await arrived.wait()
        stop.set()
        await busy
        assert service.status()["samples_now"] is True
    request = ExportProfilesServiceRequest.FromString(pushed[0][0])
    strings = request.dictionary.string_table
    keys = {strings[row.key_strindex] for row in request.dictionary.attribute_table}
    assert {"spanbridge.stage", "thread.name"} <= keys
    assert pushed[0][1] > 0
    assert len(request.dictionary.link_table) == 1


async def test_a_push_that_fails_is_told_and_the_next_one_is_made() -> None:
    calls = 0
    again = asyncio.Event()

    async def push(_body: bytes, _count: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            again.set()
        raise RuntimeError("no")

    events = Events()
    service = ProfilerService(events, rate=250, peeks={}, push=push, interval=0.1)
    await service.start()
    stop = asyncio.Event()
    busy = asyncio.create_task(keep_busy(stop, lambda: burn(0.01)))
    await again.wait()
    stop.set()
    await busy
    await service.stop()
    assert {event.name for event in events.seen} == {"profiling.failures"}


async def test_without_a_profiler_the_gateway_runs() -> None:
    async with profiler(), profiler_of_another() as (service, events):
        assert [event.name for event in events.seen] == ["profiling.unavailable"]
        assert "unavailable" in service.status()
        with pytest.raises(NotProfiled):
            await service.profile(0.1)


@asynccontextmanager
async def profiler_of_another() -> AsyncIterator[tuple[ProfilerService, Events]]:
    import signal

    events = Events()
    former = signal.signal(signal.SIGPROF, lambda *_: None)
    service = ProfilerService(events, rate=100, peeks={})
    try:
        await service.start()
        yield service, events
    finally:
        await service.stop()
        signal.signal(signal.SIGPROF, former)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["mqtt/codec/decoder.py", "mqtt/connection.py"], "mqtt.codec"),
        (["core/protobuf.py", "rocketmq/grpc/encode.py", "uplink/intake.py"], "rocketmq.grpc"),
        (["telemetry/spans/wire.py", "uplink/sender.py"], "telemetry.spans"),
        (["core/health.py", "app/watch.py"], "core"),
        (["/usr/lib/python3/json/decoder.py", "uplink/intake.py"], "uplink"),
        (["/usr/lib/python3/asyncio/events.py"], "runtime"),
        (["/usr/lib/python3/asyncio/runners.py", "app/run.py", "cli/running.py"], "runtime"),
        (["/x/spanbridge_context/compact.py", "uplink/intake.py"], "context"),
        ([], "runtime"),
    ],
)
def test_stages(files: list[str], expected: str) -> None:
    frames = tuple(Frame("f", file if file.startswith("/") else ROOT + file, 1, 1) for file in files)
    assert stage(frames) == expected


def test_the_route_is_read_from_the_intake() -> None:
    assert "recipe" in Intake._process.__code__.co_varnames

    class Named:
        name = "devices/{id}"
        route: Any

    def work(recipe: Any) -> FrameType:
        import sys

        return sys._getframe()

    recipe = Named()
    recipe.route = Named
    assert _route(work(recipe)) == "devices/{id}"
    assert _route(work(None)) == ""
