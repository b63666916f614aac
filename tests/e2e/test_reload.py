"""The configuration is read again under load: nothing that was acknowledged is lost, and what did not change stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spanbridge.devstack.pytest_plugin import SharedStack

from .harness import Device, Gateway, bodies, wait_until

pytestmark = pytest.mark.brokers

MakeGateway = Callable[..., Gateway]
MakeDevice = Callable[..., Device]


class Plant:
    """A gateway with two connections to the same broker, and what its configuration is made of."""

    def __init__(self, devstack: SharedStack) -> None:
        broker = devstack.mqtt_v5
        self.host, self.port = broker.host, broker.port
        self.name, self.base = devstack.unique("gw"), devstack.unique("r")
        self.endpoints = devstack.rocketmq.endpoints
        self.topics = {"a": devstack.topic(), "b": devstack.topic()}
        self.options = {"a": "", "b": ""}
        self.extra = ""

    def connection(self, name: str) -> str:
        return f"""
[[mqtt]]
name = "{name}"
url = "mqtt://{self.host}:{self.port}"
client_id = "{self.name}-{name}"
{self.options[name]}
[[routes]]
source = "{name}"
filter = "{self.base}/{name}/+"
topic = "{self.topics[name]}"
"""

    @property
    def config(self) -> str:
        connections = "".join(map(self.connection, self.options))
        return f'name = "{self.name}"\n[rocketmq]\nendpoints = "{self.endpoints}"\n{connections}{self.extra}'


def connections(gateway: Gateway) -> dict[str, tuple[str, int]]:
    return {row["name"]: (row["link"], row["reconnects"]) for row in gateway.status["mqtt"]}


def test_nothing_is_lost_when_routes_credentials_and_endpoints_change_under_load(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    plant = Plant(devstack)
    gateway = gateways(plant.config)
    gateway.start()
    device = devices(plant.host, plant.port)
    streams = [device.stream(f"{plant.base}/{name}/{{}}", 1600, rate=200, prefix=name) for name in "ab"]
    former = plant.topics["a"]
    wait_until(lambda: len(bodies(devstack.rocketmq, former)) > 50, "messages", gateway=gateway)

    plant.topics["a"] = devstack.topic()
    told = gateway.reload(plant.config)
    assert (told["reloads"], told["last_error"], told["needs_restart"]) == (1, None, [])
    assert "is in force: routes" in gateway.log
    wait_until(lambda: len(bodies(devstack.rocketmq, plant.topics["a"])) > 20, "the new topic", gateway=gateway)
    assert connections(gateway) == {"a": ("up", 0), "b": ("up", 0)}

    plant.options["a"] = 'username = "someone"\npassword = "hush-hush"'
    gateway.reload(plant.config)
    wait_until(lambda: connections(gateway)["a"] == ("up", 1), "a new connection", gateway=gateway)

    client = gateway.status["rocketmq"]["client_id"]
    assert gateway.reload(plant.config.replace(f'topic = "{plant.topics["b"]}"', 'topic = ""'))["reloads"] == 2

    plant.endpoints = plant.endpoints.replace("127.0.0.1", "localhost")
    told = gateway.reload(plant.config)
    assert (told["reloads"], told["last_error"]) == (3, None)
    status = gateway.status["rocketmq"]
    assert status["client_id"] != client
    assert any(address.startswith("localhost:") for address in status["endpoints"])

    for stream in streams:
        stream.join()
    device.settle()

    def stored() -> list[str]:
        return [body for topic in (former, *plant.topics.values()) for body in bodies(devstack.rocketmq, topic)]

    wait_until(lambda: set(stored()) >= device.acknowledged, "every message", gateway=gateway)
    assert len(device.acknowledged) == 3200
    assert sorted(stored()) == sorted(device.published), "each once: a connection that is renewed repeats nothing"
    assert connections(gateway) == {"a": ("up", 1), "b": ("up", 0)}
    assert "hush-hush" not in gateway.log + str(gateway.status)
    wait_until(gateway.is_ready, "the gateway to be ready", gateway=gateway)
    assert gateway.stop() == 0


def test_a_file_with_errors_changes_nothing_and_each_error_is_told(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    plant = Plant(devstack)
    gateway = gateways(plant.config)
    gateway.start()
    told = gateway.reload(plant.config + '\n[uplink]\nmax_in_flight = 0\nrejected_topic = "no spaces"\n')
    assert told["reloads"] == 0
    assert told["last_error_age_s"] < 10
    for setting in ("uplink.max_in_flight", "uplink.rejected_topic"):
        assert f"error: {setting}: " in told["last_error"]
        assert f"error: {setting}: " in gateway.log
    assert "has 2 error(s); the former configuration stays in force" in gateway.log
    assert connections(gateway) == {"a": ("up", 0), "b": ("up", 0)}
    device = devices(plant.host, plant.port)
    device.publish(f"{plant.base}/a/1", "still here")
    wait_until(lambda: bodies(devstack.rocketmq, plant.topics["a"]) == ["still here"], "it", gateway=gateway)
    told = gateway.reload(plant.config)
    assert (told["reloads"], told["last_error"], told["last_error_age_s"]) == (1, None, None)


def test_connections_come_and_go_and_what_takes_a_restart_is_told(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    plant = Plant(devstack)
    gateway = gateways(plant.config)
    gateway.start()
    del plant.options["b"]
    plant.options["c"], plant.topics["c"] = "", devstack.topic()
    plant.extra = "[telemetry]\nlog_level = 'debug'\n"
    told = gateway.reload(plant.config)
    assert told["needs_restart"] == ["telemetry.log_level"]
    assert "telemetry.log_level takes a restart" in gateway.log
    wait_until(lambda: connections(gateway) == {"a": ("up", 0), "c": ("up", 0)}, "the connections", gateway=gateway)
    device = devices(plant.host, plant.port)
    device.publish(f"{plant.base}/c/1", "new here")
    wait_until(lambda: bodies(devstack.rocketmq, plant.topics["c"]) == ["new here"], "it", gateway=gateway)
    assert gateway.stop() == 0


def test_a_secret_file_that_changed_renews_its_connection(
    devstack: SharedStack, gateways: MakeGateway, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("one\n")
    plant = Plant(devstack)
    plant.options["a"] = f'username = "someone"\npassword = "file:{secret}"'
    gateway: Any = gateways(plant.config)
    gateway.start()
    assert gateway.reload(plant.config)["reloads"] == 1
    assert "nothing has changed" in gateway.log
    secret.write_text("two\n")
    gateway.reload(plant.config)
    wait_until(lambda: connections(gateway) == {"a": ("up", 1), "b": ("up", 0)}, "a new connection", gateway=gateway)


@pytest.mark.mosquitto
def test_renewed_certificates_are_taken_up_and_broken_ones_are_not(
    devstack: SharedStack, mqtt_brokers: Callable[..., Any], gateways: MakeGateway, tmp_path: Path
) -> None:
    broker = mqtt_brokers(version="5", mqtt="mosquitto", tls=True, client_certificates=True)
    made = broker.certificates
    files = {"ca_file": made.ca_file, "cert_file": made.client_cert, "key_file": made.client_key}
    for name, file in files.items():
        (tmp_path / name).write_bytes(Path(file).read_bytes())
    config = f"""
name = "{devstack.unique("gw")}"
[mqtt]
url = "mqtts://{broker.host}:{broker.port}"
[mqtt.tls]
{"".join(f'{name} = "{tmp_path / name}"{chr(10)}' for name in files)}
[rocketmq]
endpoints = "{devstack.rocketmq.endpoints}"
[[routes]]
filter = "{devstack.unique("t")}/+"
topic = "{devstack.topic()}"
"""
    gateway = gateways(config)
    gateway.start()
    certificate = (tmp_path / "cert_file").read_text()
    (tmp_path / "cert_file").write_text("no certificate")
    told = gateway.reload(config)
    assert "tls.cert_file" in told["last_error"]
    assert connections(gateway) == {"mqtt": ("up", 0)}
    (tmp_path / "cert_file").write_text(f"renewed\n{certificate}")
    assert gateway.reload(config)["last_error"] is None
    wait_until(lambda: connections(gateway) == {"mqtt": ("up", 1)}, "a new connection", gateway=gateway)
