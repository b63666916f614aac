"""``spanbridge devstack`` as people and scripts run it, on the MQTT part (RocketMQ is tested on its own)."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from typer.testing import CliRunner

from spanbridge.devstack import show
from spanbridge.devstack.cli import app
from spanbridge.devstack.state import StackState

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-P", "-m", "spanbridge.devstack.cli"]


class Subscriber:
    """Receives everything."""

    def __init__(self, host: str, port: int, version: int = paho.MQTTv5) -> None:
        self._messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self._client.on_message = lambda _c, _u, message: self._messages.put(message)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 2)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect(host, port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def get(self) -> paho.MQTTMessage:
        return self._messages.get(timeout=5)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SPANBRIDGE_MQTT": "iotcore", "COLUMNS": "100"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """In this process, because starting Python is most of what a command costs; but `up`, which leaves a process."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "up" and "--help" not in arguments:
            return subprocess.run(
                [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
            )
        result = CliRunner().invoke(app, arguments, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

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
        printed = run("env").stdout.splitlines()
        assert printed == [f"SPANBRIDGE__MQTT__URL=mqtt://127.0.0.1:{port}", "SPANBRIDGE__MQTT__VERSION=5"]

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
        assert "has no RocketMQ" in run("consume", "t").stderr

        host, port311 = state["parts"]["mqtt_v311"]["host"], state["parts"]["mqtt_v311"]["port"]
        with Subscriber(host, port) as v5, Subscriber(host, port311, version=paho.MQTTv311) as v311:
            assert run("publish", "d/1", "21.5", "--user", "unit=C", "--user", "a=b=c").returncode == 0
            assert run("publish", "d/2", "", "--mqtt-version", "3.1.1", "--qos", "2").returncode == 0
            received, plain = v5.get(), v311.get()
        assert (received.topic, received.payload) == ("d/1", b"21.5")
        assert received.properties.UserProperty == [("unit", "C"), ("a", "b=c")]
        assert (plain.topic, plain.payload) == ("d/2", b"")
        for wrong in (
            ["d/#", "x"],
            ["d", "x", "--user", "unit"],
            ["d", "x", "--mqtt-version", "3.1.1", "--user", "a=b"],
        ):
            refused = run("publish", *wrong)
            assert (refused.returncode, refused.stderr[:7]) == (1, "error: ")

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
    assert "devstack up`" in gone.stderr
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


@pytest.mark.parametrize("installed", [True, False])
def test_what_is_offered_to_paste_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], installed: bool
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if installed else None)
    monkeypatch.setattr("spanbridge.devstack.show.command", lambda: "spanbridge")
    parts: dict[str, dict[str, str | int]] = {
        "mqtt_v5": {"host": "127.0.0.1", "port": 1, "kind": "rumqttd", "version": "5"},
        "rocketmq": {"host": "127.0.0.1", "port": 2, "broker_port": 3, "protocol": "grpc", "version": "5.5.0"},
    }
    show.ready(StackState(name="b", pid=1, env={}, parts=parts), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert ("mosquitto_pub -V mqttv5 -h 127.0.0.1 -p 1 -q 1 -t devices/d1/telemetry -m hello" in lines) == installed
    assert ("spanbridge devstack publish --name b devices/d1/telemetry hello" in lines) != installed
    assert "spanbridge devstack consume --name b telemetry" in lines
    brokers = "SPANBRIDGE__MQTT__URL=mqtt://127.0.0.1:1 SPANBRIDGE__ROCKETMQ__ENDPOINTS=127.0.0.1:2"
    assert f"{brokers} spanbridge run" in lines


def test_what_a_message_holds_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    system = SimpleNamespace(tag="t\x1b]0;owned\x07", keys=["k\u202e"], message_group="")
    received = SimpleNamespace(
        system_properties=system, body=b"21.5 \xc2\xb0C\x1b[2J\r\n\x00\xff", user_properties={"a\tb": "c\x9b2J"}
    )
    show.message(received, as_json=False)
    assert capsys.readouterr().out == (
        "21.5 °C\\x1b[2J\\r\\n\\x00\\xff\n  tag=t\\x1b]0;owned\\x07\n  keys=['k\\u202e']\n  a\\tb=c\\x9b2J\n"
    )
    show.message(received, as_json=True)
    assert "\x1b" not in capsys.readouterr().out


def test_ctrl_c_before_it_is_up_is_no_success(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spanbridge.devstack.cli.Devstack.up", interrupted)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    done = CliRunner().invoke(app, ["up"], env=environment)
    assert (done.exit_code, done.stderr) == (130, "stopped\n")


def test_a_disk_that_is_full_for_the_brokers_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    disk = SimpleNamespace(total=500_000_000_000, free=4_000_000_000)  # plenty, and RocketMQ refuses above 99 %
    monkeypatch.setattr("shutil.disk_usage", lambda _path: disk)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    done = CliRunner().invoke(app, ["up", "--only", "rocketmq"], env=environment)
    assert done.exit_code == 1
    assert "has 4000 MB free, RocketMQ needs 5000 MB" in done.stderr
    assert "TMPDIR" in done.stderr


def test_what_the_system_refuses_is_one_message(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    def refused(**_: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr("spanbridge.devstack.cli.Devstack.up", refused)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    done = CliRunner().invoke(app, ["up"], env=environment)
    assert (done.exit_code, done.stderr) == (1, "error: /tmp/x: No space left on device\n")
