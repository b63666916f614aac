"""The gateway's own push to Pyroscope: what its configuration asks for, and what a server gets of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from spanbridge.app.profiler import build
from spanbridge.config import examine_text
from spanbridge.profiling import ProfilerService
from spanbridge.telemetry import Telemetry
from spanbridge_profiling.push import pyroscope_poster
from tests.profiling.test_gateway import Events, encode_all, keep_busy
from tests.profiling.test_pyroscope import pushed
from tests.profiling.test_zero_code import Receiver, receiver

__all__ = ["receiver"]

BASE = """
[mqtt]
url = "mqtt://localhost"
[rocketmq]
endpoints = "localhost:8081"
[[routes]]
filter = "a/+"
topic = "t"
[profiling]
push = "pyroscope"
"""


def profiler(url: str, events: Events, extra: str = "") -> ProfilerService:
    text = f'{BASE}pyroscope_url = "{url}"\ninterval = 1\nrate = 250\n{extra}'
    report = examine_text(text, {}, base=Path.cwd())
    assert report.config is not None, report.errors
    telemetry = SimpleNamespace(
        reporter=events, resource=SimpleNamespace(attributes={"service.name": "edge", "process.pid": 4711})
    )
    return build(report.config, cast("Telemetry", telemetry), {})


async def busy_until(service: ProfilerService, condition: Callable[[], object]) -> None:
    """Run the profiler over some work of the gateway's core until the condition holds."""
    stop = asyncio.Event()
    await service.start()
    busy = asyncio.create_task(keep_busy(stop, encode_all))
    try:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await busy
        await service.stop()


@pytest.mark.anyio
async def test_profiles_are_pushed_with_stages(receiver: Receiver) -> None:
    events = Events()
    service = profiler(f"{receiver.url}/pyroscope/", events, 'pyroscope_headers = "X-Tenant=plant%20a"')
    await busy_until(service, lambda: receiver.taken)
    path, tenant, body = receiver.taken[0]
    assert (path, tenant) == ("/pyroscope/push.v1.PusherService/Push", "plant a")
    labels, found = pushed(body)
    assert labels == {"__name__": "process_cpu", "service_name": "edge"}
    assert found.types == [("samples", "count"), ("cpu", "nanoseconds")]
    cpu: dict[str, int] = {}
    for sample in found.samples:
        assert set(sample.labels) <= {"spanbridge_stage", "spanbridge_route"}, "no span is current in the gateway"
        if any(frame[0] == "encode_all" for frame in sample.frames):
            stage = sample.labels["spanbridge_stage"]
            cpu[stage] = cpu.get(stage, 0) + sample.values[1]
    assert cpu["core"] > 0.5 * sum(cpu.values())
    assert events.seen == []


@pytest.mark.anyio
async def test_a_server_that_refuses_is_told_and_so_is_its_return(receiver: Receiver) -> None:
    events = Events()
    receiver.status = 503

    def back() -> bool:
        if events.seen:
            receiver.status = 200
        return [event.name for event in events.seen][-1:] == ["profiling.push.recoveries"]

    await busy_until(profiler(receiver.url, events), back)
    assert events.seen[0].name == "profiling.push.failures"
    assert events.seen[0].text().startswith("Pyroscope takes no profile: the receiver answered 503; ")
    assert events.seen[0].count > 0
    assert events.seen[0].counted


@pytest.mark.anyio
async def test_a_server_that_is_away_is_told() -> None:
    events = Events()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        await busy_until(profiler(f"http://127.0.0.1:{nobody.getsockname()[1]}", events), lambda: events.seen)
    assert {event.name for event in events.seen} == {"profiling.push.failures"}
    assert "refused" in events.seen[0].text().lower()


def test_an_answer_that_is_no_http_is_an_error_of_the_receiver() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        async def ask() -> None:
            asking = asyncio.create_task(asyncio.to_thread(pyroscope_poster(url, {}, 30), b"{}"))
            connection, _ = await asyncio.to_thread(server.accept)
            with connection:
                connection.sendall(b"SSH-2.0-x\r\n\r\n")
                with pytest.raises(OSError, match="no HTTP"):
                    await asking

        asyncio.run(ask())


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('pyroscope_url = "localhost:4040"', "profiling.pyroscope_url"),
        ('pyroscope_url = "http://me:hush@localhost:4040"', "profiling.pyroscope_url"),
        ('pyroscope_url = "http://localhost:99999"', "profiling.pyroscope_url"),
        ('pyroscope_headers = "Authorization Bearer hush"', "profiling.pyroscope_headers"),
        ('pyroscope_headers = "a=hush%0d%0ab: c"', "profiling.pyroscope_headers"),
    ],
)
def test_settings_that_cannot_be_used_are_told_without_secrets(line: str, path: str) -> None:
    report = examine_text(BASE + line, {}, base=Path.cwd())
    assert [problem.path for problem in report.errors] == [path]
    found: Any = [str(problem) for problem in report.errors]
    assert "hush" not in json.dumps(found).replace("me:hush@", "") or "url" in path


def test_headers_for_nobody_are_a_mistake() -> None:
    text = BASE.replace('push = "pyroscope"', 'pyroscope_headers = "a=b"')
    assert [problem.path for problem in examine_text(text, {}, base=Path.cwd()).errors] == [
        "profiling.pyroscope_headers"
    ]
