"""A home directory that cannot be written to, or is not there, and other directories that refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spanbridge.demo import cli as demo
from spanbridge.devstack import DevstackError, jars
from spanbridge.devstack.cli import app
from spanbridge.devstack.ports import PortLease, own_directory

NO_HOME = "/proc/self/no-home"
"""Nothing can be made there, not even by root."""

PROBE = """
import sys
from spanbridge.devstack.probe import NotYet
from spanbridge.devstack.rocketmq_probe import RocketmqProbe
probe = RocketmqProbe("127.0.0.1:1", "t", "g")
for attempt in (probe.round, lambda: probe.route("t"), lambda: list(probe.messages(wait=1))):
    try:
        attempt()
    except NotYet:
        print("not yet")
assert "rocketmq" not in sys.modules
"""


def test_looking_into_rocketmq_needs_no_home() -> None:
    environment = {**os.environ, "HOME": NO_HOME}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "not yet\n" * 3), done.stderr


@pytest.mark.brokers
def test_a_stack_comes_up_with_a_cache_and_no_home(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": NO_HOME, "XDG_RUNTIME_DIR": str(tmp_path)}
    environment["SPANBRIDGE_CACHE"] = str(jars.cache_dir())
    code = (
        "from spanbridge.devstack import Devstack\n"
        "with Devstack.up(mqtt_v5=False, mqtt_v311=False) as stack: print(stack.rocketmq.create_topic('t', queues=1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert (done.returncode, done.stdout) == (0, "t\n"), done.stderr


def test_a_cache_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", NO_HOME)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPANBRIDGE_CACHE", raising=False)
    with pytest.raises(DevstackError, match=f"cannot use the cache directory {NO_HOME}/.cache/spanbridge: ") as caught:
        jars.ensure_jars()
    assert caught.value.hint == "set SPANBRIDGE_CACHE to a directory that you may write to"


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPANBRIDGE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(DevstackError, match="this user has no home directory"):
        jars.cache_dir()


def test_a_directory_for_marks_that_cannot_be_made_is_named() -> None:
    with pytest.raises(DevstackError, match="cannot make the directory /proc/self/no/spanbridge: "):
        own_directory(Path("/proc/self/no/spanbridge"))


@pytest.mark.parametrize("command", ["devstack", "demo"])
def test_a_directory_that_refuses_is_one_line_that_names_it(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise OSError(30, "Read-only file system", "/tmp/spanbridge-ports-1")

    monkeypatch.setattr(PortLease, "__init__", refused)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(jars, "missing_jars", lambda _: [])
    program, arguments = (
        (app, ["up", "--only", "mqtt", "--name", "home-test"]) if command == "devstack" else (demo.app, [])
    )
    done = CliRunner().invoke(program, arguments)
    assert done.exit_code == 1
    assert "/tmp/spanbridge-ports-1: Read-only file system" in done.output
    assert "Errno" not in done.output
