"""Dead letters on the disk of a gateway that is killed, and sent again by one that runs. RocketMQ is away meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spanbridge.cli.spool import build
from spanbridge.devstack.pytest_plugin import SharedStack

from .harness import Device, Gateway, wait_until

pytestmark = pytest.mark.brokers


def config(name: str, mqtt: str, base: str, limit: int, spool: Path) -> str:
    return f"""
name = "{name}"
[mqtt]
url = "mqtt://{mqtt}"
backoff_maximum = 1
[rocketmq]
endpoints = "127.0.0.1:1"
[uplink]
rejected = "spool"
[spool]
path = "{spool}"
spill_after = 1
reserve = 0
[[routes]]
filter = "{base}/+"
topic = "t"
max_payload = {limit}
"""


def test_they_survive_a_kill_and_are_sent_again_by_the_gateway_that_runs(
    mqtt_devstack: SharedStack,
    gateways: Callable[..., Gateway],
    devices: Callable[..., Device],
    tmp_path: Path,
) -> None:
    base, name, path = mqtt_devstack.unique("d"), mqtt_devstack.unique("gw"), tmp_path / "spool"
    mqtt = mqtt_devstack.mqtt_v5

    def text(limit: int) -> str:
        return config(name, f"{mqtt.host}:{mqtt.port}", base, limit, path)

    def ask(*arguments: str) -> Any:
        result = CliRunner().invoke(build(), [*arguments, "--path", str(path)])
        assert result.exit_code == 0, result.output
        return json.loads(result.output) if "--json" in arguments else result.output

    gateway = gateways(text(10))
    gateway.start(ready=False)
    wait_until(lambda: gateway.status["mqtt"][0]["link"] == "up", "a connection", gateway=gateway)
    device = devices(mqtt.host, mqtt.port)
    for number in range(20):
        device.publish(f"{base}/{number}", f"far too long {number}")
    device.settle()
    wait_until(lambda: gateway.status["spool"]["rejected"]["messages"] == 20, "dead letters", gateway=gateway)
    wait_until(lambda: gateway.status["uplink"]["in_flight"] == 0, "acknowledgements", gateway=gateway)
    gateway.kill()
    rows = ask("ls", "--rejected", "--json")
    assert [(row["topic"], row["reason"]) for row in rows] == [(f"{base}/{n}", "too_large") for n in range(20)]

    gateway.write(text(100))
    gateway.start(ready=False)
    assert gateway.status["spool"]["rejected"]["messages"] == 20
    ask("replay", "--rejected", "--reason", "too_large")
    wait_until(lambda: gateway.status["spool"]["messages"] == 20, "messages in the spool", gateway=gateway)
    wait_until(lambda: gateway.status["spool"]["rejected"]["messages"] == 0, "no dead letter", gateway=gateway)
    told = "20 dead letter(s) are in the spool"
    wait_until(lambda: told in gateway.log, "a line in the log", gateway=gateway)
    gateway.kill()
    lines = [json.loads(line) for line in ask("export").splitlines()]
    assert [line["payload"] for line in lines] == [f"far too long {number}" for number in range(20)]
    assert "Traceback" not in gateway.log
