"""`spanbridge profile`, asked of an admin server whose gateway has one slow stage."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spanbridge.admin import AdminServer, Profiles
from spanbridge.cli.commands import build
from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.health import Readiness
from spanbridge.profiling import Busy, NotProfiled, ProfilerService
from spanbridge.uplink import intake
from spanbridge_context import split_user_properties
from spanbridge_profiling.flames import by_label
from spanbridge_profiling.pprof import write_pprof
from spanbridge_profiling.reading import read_pprof
from tests.fakes import FakeReporter
from tests.profiling.test_flamegraph import PROFILE
from tests.uplink.test_pipeline import Rig, running

pytestmark = pytest.mark.anyio
Make = Callable[[float], Awaitable[bytes]]


@asynccontextmanager
async def served(make: Make | None, token: str | None = None) -> AsyncIterator[str]:
    page = Profiles(make) if make is not None else None
    server = AdminServer(
        "127.0.0.1", 0, readiness=Readiness, status=dict, reporter=FakeReporter(), profile=page, token=token
    )
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


async def ask(*arguments: str) -> tuple[int, str, str]:
    """Run the command in a process of its own, as users do."""
    command = [str(Path(sys.executable).with_name("spanbridge")), "profile", *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def here(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build(), ["profile", *arguments], env={"COLUMNS": "100", "NO_COLOR": "1"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


async def keep_busy(rig: Rig, stop: asyncio.Event) -> None:
    """Messages come in all the time."""
    while not stop.is_set():
        rig.deliver(*(rig.publish(user_properties=[("tp", "no context"), ("site", "ulm")]) for _ in range(5)))
        await rig.until(lambda: not rig.uplink.in_flight)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_slow_stage_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = split_user_properties

    def slowly(*arguments: Any) -> Any:
        for _ in range(100):
            read(*arguments)
        return read(*arguments)

    monkeypatch.setattr(intake, "split_user_properties", slowly)
    page, raw = tmp_path / "flames.html", tmp_path / "cpu.pb.gz"
    service = ProfilerService(FakeReporter(), rate=250, peeks={})
    await service.start()
    try:
        async with served(service.profile, "s3cret") as url, running() as rig:
            stop = asyncio.Event()
            busy = asyncio.create_task(keep_busy(rig, stop))
            token = tmp_path / "token"
            token.write_text("s3cret\n")
            code, out, err = await ask(url, "-s", "1", "--token", f"file:{token}", "-f", "pprof", "-o", str(raw))
            assert (code, err) == (0, "")
            stop.set()
            await busy
    finally:
        await service.stop()
    assert "stages: context" in out
    assert out.endswith(f"wrote {raw}\n")
    assert by_label(read_pprof(raw.read_bytes()), "spanbridge.stage")[0][0] == "context"
    assert here(str(raw), "-o", str(page), "--by", "spanbridge.stage")[0] == 0
    assert "spanbridge.stage: context" in page.read_text()


async def nothing(_seconds: float) -> bytes:
    return write_pprof(PROFILE)


def refusing(fault: SpanbridgeError) -> Make:
    async def make(_seconds: float) -> bytes:
        raise fault

    return make


@pytest.mark.parametrize(
    ("make", "token", "arguments", "code", "told"),
    [
        pytest.param(nothing, None, [], 0, "", id="written"),
        pytest.param(nothing, "s3cret", ["--token", "s3cret"], 0, "", id="with a token"),
        pytest.param(nothing, "s3cret", [], 2, "the token is missing or wrong", id="without it"),
        pytest.param(nothing, "s3cret", ["--token", "other"], 2, "the token is missing or wrong", id="with another"),
        pytest.param(nothing, "s3cret", ["--token", "a\nb"], 1, "the request cannot be sent", id="no token"),
        pytest.param(None, None, [], 2, "profiles are off (set `enabled = true` in [profiling])", id="off"),
        pytest.param(refusing(Busy("one at a time")), None, [], 1, "one at a time", id="busy"),
        pytest.param(refusing(NotProfiled("no timers")), None, [], 1, "no timers", id="not here"),
    ],
)
async def test_exit_codes(
    make: Make | None, token: str | None, arguments: list[str], code: int, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "flames.html"
    async with served(make, token) as url:
        found, out, err = await asyncio.to_thread(here, url, *arguments, "-o", str(file))
    assert (found, file.exists()) == (code, code == 0), err
    assert told in err
    assert "s3cret" not in out + err


async def test_the_address_and_the_token_are_those_of_the_configuration(tmp_path: Path) -> None:
    file, page = tmp_path / "gateway.toml", tmp_path / "flames.html"
    async with served(nothing, "s3cret") as url:
        port = url.rpartition(":")[2]
        file.write_text(f'{CONFIG}[admin]\nport = {port}\ntoken = "s3cret"\n[profiling]\nenabled = true\n')
        code, _, err = await asyncio.to_thread(here, "-c", str(file), "-o", str(page))
    assert (code, err, page.exists()) == (0, "", True)
    code, _, err = await asyncio.to_thread(here, "-c", str(file), "-o", str(page))
    assert (code, "connection refused" in err) == (1, True)


CONFIG = """
[[mqtt]]
url = "mqtt://127.0.0.1:1883"
[rocketmq]
endpoints = "127.0.0.1:8081"
[[routes]]
filter = "a/#"
topic = "t"
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["http://127.0.0.1:9", "--seconds", "61"], 2, id="too long"),
        pytest.param(["ftp://127.0.0.1"], 2, id="no address"),
        pytest.param(["http://me:secret@127.0.0.1:9"], 2, id="credentials in the address"),
        pytest.param(["http://127.0.0.1:9", "--token", "file:/nowhere"], 2, id="no such token"),
        pytest.param(["-c", "nowhere.toml"], 2, id="no configuration"),
        pytest.param(["-c", "off.toml"], 2, id="off by the configuration"),
        pytest.param(["nowhere.pb.gz"], 1, id="no such file"),
        pytest.param(["off.toml"], 1, id="no profile"),
        pytest.param(["cpu.pb.gz", "-o", "nowhere/flames.html"], 1, id="cannot be written"),
        pytest.param(["cpu.pb.gz", "-f", "svg"], 2, id="no such format"),
    ],
)
def test_what_cannot_be_done(arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("off.toml").write_text(CONFIG)
    Path("cpu.pb.gz").write_bytes(write_pprof(PROFILE))
    found, out, err = here(*arguments)
    assert (found, out) == (code, "")
    assert err
    assert "Traceback" not in err
    assert "me:secret" not in err


def test_files_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cpu.pb.gz").write_bytes(write_pprof(PROFILE))
    code, out, _ = here("cpu.pb.gz", "-f", "collapsed", "-o", "-")
    assert code == 0
    assert "MainThread;main (app/main.py);Codec.decode (app/codec.py) 50000\n" in out
    code, out, _ = here("cpu.pb.gz", "-f", "speedscope", "-o", "-")
    assert json.loads(out)["name"] == "CPU of cpu.pb.gz"
    code, out, _ = here("cpu.pb.gz")
    [page] = tmp_path.glob("spanbridge-*.html")
    assert out.splitlines()[-1] == f"wrote {page.name}"
    assert " 50.0%  Codec.decode (app/codec.py:12)" in out.splitlines()
