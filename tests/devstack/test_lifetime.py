"""Nothing outlives the process that started a stack, however that process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from spanbridge.devstack import Devstack, DevstackError, ServiceError, process
from spanbridge.devstack.ports import PortLease
from spanbridge.devstack.process import KeeperClient, ServerProcess

PARENT = """
import json, os, sys, threading, time
from spanbridge.devstack import Devstack
stack = Devstack.up(rocketmq=False)
if "paused" in sys.argv:
    stack.mqtt_v5.pause()
if "forked" in sys.argv and os.fork() == 0:
    time.sleep(60)
    os._exit(0)
facts = {"brokers": [s.pid for s in stack.services], "keeper": stack.keeper_pid, "dir": str(stack.directory)}
print(json.dumps(facts), flush=True)
if "exit" not in sys.argv:
    time.sleep(60)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def parent() -> Callable[..., tuple[subprocess.Popen[str], dict[str, object]]]:
    def start(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, object]]:
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        with process.stdout:
            return process, json.loads(process.stdout.readline())

    return start


@pytest.mark.brokers
@pytest.mark.parametrize("arguments", [(), ("paused",), ("forked",)], ids=["plain", "broker-paused", "pipe-held"])
def test_kill_9_of_the_parent_ends_every_broker_and_removes_the_data(parent, arguments: tuple[str, ...]) -> None:
    process, facts = parent(*arguments)
    assert not any(gone(pid) for pid in facts["brokers"])
    children = psutil.Process(process.pid).children() if "forked" in arguments else []
    process.kill()
    process.wait()
    assert wait_until(lambda: all(gone(pid) for pid in [*facts["brokers"], facts["keeper"]]))
    assert not Path(facts["dir"]).exists()
    for child in children:
        if child.pid != facts["keeper"] and child.is_running():
            child.kill()


@pytest.mark.brokers
def test_a_parent_that_forgets_leaves_nothing(parent) -> None:
    process, facts = parent("exit")
    process.wait(10)
    assert wait_until(lambda: all(gone(pid) for pid in [*facts["brokers"], facts["keeper"]]))
    assert not Path(facts["dir"]).exists()


@pytest.mark.brokers
@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_kill_9_of_the_keeper_ends_every_broker_and_is_reported() -> None:
    with Devstack.up(rocketmq=False) as stack:
        pids = [service.pid for service in stack.services]
        os.kill(stack.keeper_pid, signal.SIGKILL)
        assert wait_until(lambda: all(gone(pid) for pid in pids if pid is not None))
        with pytest.raises(ServiceError, match="keeper process has gone"):
            stack.mqtt_v5.running  # noqa: B018
        directory = stack.directory
    assert not directory.exists()


def test_a_stack_outlives_the_thread_that_made_it(tmp_path: Path) -> None:
    made: list[ServerProcess] = []

    def make() -> None:
        keeper = KeeperClient(tmp_path / "stack")
        made.append(ServerProcess(keeper=keeper, name="sleep", argv=["sleep", "60"], directory=tmp_path / "stack"))
        made[0].start()

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    time.sleep(0.2)  # long enough for a signal to arrive, were one sent
    assert made[0].running
    made[0].keeper.close()


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    keeper = KeeperClient(tmp_path)
    try:
        service = ServerProcess(keeper=keeper, name="ghost", argv=["/does/not/exist"], directory=tmp_path)
        with pytest.raises(ServiceError, match=r"ghost: .*No such file.*/does/not/exist"):
            service.start()
        assert not service.running
        assert service.pid is None
    finally:
        keeper.close()


def test_stop_is_friendly_first_and_final_at_last(tmp_path: Path) -> None:
    keeper = KeeperClient(tmp_path)
    try:
        script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
        deaf = ServerProcess(keeper=keeper, name="deaf", argv=["sh", "-c", script], directory=tmp_path)
        deaf.start()
        assert wait_until(lambda: "ready" in deaf.log_tail())
        deaf.stop(timeout=0.3)
        assert "asked" in deaf.log_tail()
        assert not deaf.running
        polite = ServerProcess(keeper=keeper, name="polite", argv=["sleep", "60"], directory=tmp_path)
        polite.start()
        polite.pause()
        polite.stop(timeout=5)
        assert not polite.running
    finally:
        keeper.close()


def test_parts_that_were_not_asked_for_say_so() -> None:
    with Devstack.up(rocketmq=False, mqtt_v5=False, mqtt_v311=False) as stack:
        for part in ("rocketmq", "mqtt_v5", "mqtt_v311"):
            with pytest.raises(DevstackError, match=f"start it with {part}=True"):
                getattr(stack, part)
        assert stack.env() == {}
    stack.down()
    assert not stack.directory.exists()


def test_two_leases_never_share_a_port() -> None:
    leases = [PortLease() for _ in range(4)]
    taken: list[int] = []
    for lease in leases:
        for _ in range(25):
            port = lease.take(-2, 1)
            taken += [port - 2, port, port + 1]
    assert len(set(taken)) == len(taken)
    for lease in leases:
        lease.release()


def test_a_failed_start_leaves_nothing_and_shows_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(Path(tempfile.gettempdir()).glob("spanbridge-devstack-*"))
    monkeypatch.setattr("spanbridge.devstack.mqtt_setup.BrokerCommand._rumqttd", lambda _self: "not toml")
    with pytest.raises(ServiceError, match="ended by itself") as caught:
        Devstack.up(rocketmq=False, mqtt="iotcore")
    assert "last lines of its log" in str(caught.value)
    mine = set(Path(tempfile.gettempdir()).glob("spanbridge-devstack-*")) - before
    assert not [path for path in mine if (path / "mqtt-v5").exists() and "not toml" in _config(path)]


def _config(path: Path) -> str:
    try:
        return (path / "mqtt-v5" / "rumqttd.toml").read_text()
    except OSError:
        return ""


def test_a_parent_that_leaves_in_the_middle_of_a_request_hears_no_complaint(tmp_path: Path) -> None:
    directory = tmp_path / "stack"
    directory.mkdir()
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", process._KEEPER, str(os.getpid()), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    keeper.stdout.close()
    keeper.stdin.write(b'{"do": "poll", "name": "x"}\n')
    keeper.stdin.close()
    with keeper.stderr as errors:
        assert errors.read() == b""
    assert keeper.wait(10) == 0
    assert not directory.exists()


def test_ctrl_c_while_the_keeper_starts_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    directory = tmp_path / "stack"
    directory.mkdir()
    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        KeeperClient(directory)
    assert not directory.exists()
