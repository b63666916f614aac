"""``spanbridge devstack`` as people and scripts run it, on the MQTT part (RocketMQ is tested on its own)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-P", "-m", "spanbridge.devstack.cli"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SPANBRIDGE_MQTT": "iotcore", "COLUMNS": "100"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return command


@pytest.mark.brokers
def test_up_status_env_logs_down_and_two_side_by_side(run: Run) -> None:
    first = run("up", "--detach", "--only", "mqtt", "--json")
    assert first.returncode == 0, first.stderr
    second = run("up", "--detach", "--only", "mqtt", "--name", "b")
    assert "spanbridge devstack down --name b" in second.stdout
    try:
        state = json.loads(first.stdout)
        port = state["parts"]["mqtt_v5"]["port"]
        assert f":{port}" not in second.stdout
        assert f"SPANBRIDGE_MQTT_V5_PORT={port}\n" in run("env").stdout

        status = run("status", "--json")
        assert status.returncode == 0
        assert json.loads(status.stdout)["problems"] == {"mqtt_v5": None, "mqtt_v311": None}
        assert "ready" in run("status", "--name", "b").stdout

        again = run("up", "--detach", "--only", "mqtt")
        assert again.returncode == 1
        assert "up already" in again.stderr
        unknown = run("logs", "nothing")
        assert unknown.returncode == 1
        assert "there are: mqtt-v5, mqtt-v311" in unknown.stderr
        assert run("logs", "mqtt-v5").returncode == 0
        topic = run("topic", "t")
        assert topic.returncode == 1
        assert "has no RocketMQ" in topic.stderr

        broker = next(child for child in psutil.Process(state["pid"]).children(recursive=True) if not child.children())
        broker.suspend()
        frozen = run("status")
        broker.resume()
        assert frozen.returncode == 1
    finally:
        ends = [run("down"), run("down", "--name", "b")]
    assert [end.stdout for end in ends] == ["default: down\n", "b: down\n"]
    gone = run("status")
    assert gone.returncode == 3
    assert "spanbridge devstack up" in gone.stderr
    assert run("down").returncode == 0


@pytest.mark.brokers
def test_foreground_ends_with_ctrl_c_and_leaves_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "up", "--only", "mqtt", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    state = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == "stopped\n"
    assert not Path(state["logs"]["mqtt-v5"]).parent.parent.exists()
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.brokers
def test_a_broker_that_dies_ends_the_stack_with_its_name(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "up", "--only", "mqtt", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    json.loads(process.stdout.readline())
    keeper = psutil.Process(process.pid).children()[0]
    keeper.children()[0].kill()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ended by itself" in errors
    assert "Traceback" not in errors


def test_errors_are_one_message(run: Run) -> None:
    wrong = run("up", "--only", "mqtt", "--mqtt", "hivemq")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: ")
    assert "mosquitto, iotcore, amqtt or auto" in wrong.stderr
    name = run("status", "--name", "../x")
    assert name.returncode == 1
    assert "cannot be a stack's name" in name.stderr


def test_help_has_an_example_and_names_the_settings(run: Run) -> None:
    text = run("up", "--help").stdout
    assert "spanbridge devstack up --detach" in text
    assert "SPANBRIDGE_MAVEN_URL" in text
    assert "3 the stack is not up" in run("status", "--help").stdout
