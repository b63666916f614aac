"""Alerts fire by what they are for: real gateways on real MQTT brokers, RocketMQ away, seen by a real Prometheus.

Those that need a RocketMQ are in :mod:`tests.deploy.test_prometheus`, beside the brokers that run there.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from spanbridge.demo.prometheus import prometheus_program
from spanbridge.devstack import Devstack
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.mqtt_setup import MqttSetup
from spanbridge.devstack.ports import LOOPBACK, PortLease
from spanbridge.devstack.pytest_plugin import SharedStack
from tests.deploy.alarms import Watch, fired, shortened
from tests.deploy.test_dashboard import ALERTS, DEPLOY
from tests.e2e.harness import Device, Gateway, wait_until

pytestmark = [
    pytest.mark.brokers,
    pytest.mark.timeout(600),
    pytest.mark.skipif(prometheus_program() is None, reason="prometheus is not on the PATH"),
]

LAG = DEPLOY / "prometheus" / "lag.yml"
STUCK, SPOOLING = "stuck", "spooling"
CONFIGURATION = """
name = "{name}"

[[mqtt]]
name = "plant"
url = "mqtt://{plant}"

[[mqtt]]
name = "edge"
url = "mqtt://{edge}"
backoff_maximum = 1

[[mqtt]]
name = "gone"
url = "mqtt://{nobody}"

[rocketmq]
endpoints = "{nobody}"
request_timeout = 1

[[routes]]
filter = "{name}/large/+"
topic = "large-readings"
max_payload = 4

[[routes]]
filter = "{name}/+"
topic = "readings"
message_group = "{{topic[1]}}"
"""
ADDED = {
    STUCK: """
[uplink]
max_in_flight = 4

[[downlinks]]
topic = "orders"
consumer_group = "gateway-orders"
mqtt_topic = "devices/{{key}}/orders"
broker = "gone"

[lag]
name_servers = "{nobody}"
period = 1
timeout = 1

[[lag.groups]]
name = "billing"
topics = ["readings"]
""",
    SPOOLING: """
[uplink]
rejected = "spool"

[spool]
path = "{directory}/spool"
max_bytes = "1MiB"
rejected_max_bytes = "1MiB"
segment_bytes = "64KiB"
spill_after = 0.5
reserve = 0
""",
}


class Scene:
    """Two gateways that RocketMQ is away from, a device that goes on sending, and Prometheus. A context manager."""

    def __init__(self, directory: Path, shared: MqttBroker, lossy: MqttBroker, nobody: str) -> None:
        self.lossy = lossy
        self.gateways: dict[str, Gateway] = {}
        self._directory, self._shared, self._ended = directory, shared, threading.Event()
        for name, added in ADDED.items():
            folder = directory / name
            folder.mkdir()
            plant, edge = (f"{broker.host}:{broker.port}" for broker in (shared, lossy))
            values = {"name": name, "plant": plant, "edge": edge, "nobody": nobody, "directory": folder}
            self.gateways[name] = Gateway(folder, (CONFIGURATION + added).format(**values))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for gateway in self.gateways.values():
                stack.callback(gateway.end)
                gateway.start(ready=False)
            for gateway in self.gateways.values():
                wait_until(functools.partial(_connected, gateway), "both connections", gateway=gateway)
            addresses = [gateway.address for gateway in self.gateways.values()]
            self.watch = Watch(self._directory, {"spanbridge": addresses}, [ALERTS, LAG])
            stack.callback(self.watch.close)
            wait_until(self.watch.client.ready, "Prometheus")
            self._device = Device(self._shared.host, self._shared.port)
            stack.callback(self._device.close)
            sender = threading.Thread(target=self._send, daemon=True)
            sender.start()
            stack.callback(sender.join)
            stack.callback(self._ended.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _send(self) -> None:
        self._device.publish(f"{STUCK}/large/meter-1", "too large")
        number = 0
        while not self._ended.wait(0.25):
            number += 1
            for name in self.gateways:
                self._device.publish(f"{name}/meter-{number % 3}", "x" * 20_000 if name == SPOOLING else "1")
            self._device.publish(f"{SPOOLING}/large/meter-1", "y" * 80_000)

    def fires(self, alert: str, gateway: str, **labels: str) -> None:
        """Wait until the alert has fired for the gateway, with these labels among its own."""
        wanted = {"instance": self.gateways[gateway].address, **labels}

        def has() -> bool:
            client = self.watch.client
            return client.until(lambda _: any(wanted.items() <= found.items() for found in fired(client, alert)))

        wait_until(has, f"{alert} to fire", 120, gateway=self.gateways[gateway])


def _connected(gateway: Gateway) -> bool:
    return {one["name"] for one in gateway.status["mqtt"] if one["link"] == "up"} == {"plant", "edge"}


@pytest.fixture(scope="module")
def scene(mqtt_devstack: SharedStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    ports = PortLease()
    nobody = f"{LOOPBACK}:{ports.take()}"
    # Nothing is saved before it is killed.
    lossy = Devstack.up(rocketmq=False, mqtt_v5=MqttSetup(autosave=3600), mqtt_v311=False)
    directory = tmp_path_factory.mktemp("scene")
    with lossy, Scene(directory, mqtt_devstack.mqtt_v5, lossy.mqtt_v5, nobody) as made:
        yield made
    ports.release()


SITUATIONS = [
    ("SpanbridgeRocketmqDown", {}),
    ("SpanbridgeMqttDown", {"source": "gone"}),
    ("SpanbridgePublisherDown", {"broker": "gone"}),
    ("SpanbridgeConsumerDown", {"downlink": "orders"}),
    ("SpanbridgeDrops", {"reason": "too_large"}),
    ("SpanbridgeStuck", {}),
    ("SpanbridgeFull", {}),
    ("SpanbridgeSendsFail", {"messaging_destination_name": "readings", "error_type": "unavailable"}),
    ("SpanbridgeLagUnreadable", {"messaging_consumer_group_name": "billing", "status": "unreadable"}),
]


@pytest.mark.parametrize(("alert", "labels"), SITUATIONS, ids=[alert for alert, _ in SITUATIONS])
def test_rocketmq_and_an_mqtt_broker_are_away(alert: str, labels: Mapping[str, str], scene: Scene) -> None:
    scene.fires(alert, STUCK, **labels)


def test_a_spool_and_its_dead_letters_fill_until_there_is_no_room(scene: Scene) -> None:
    scene.fires("SpanbridgeSpoolFills", SPOOLING)
    scene.fires("SpanbridgeSpoolFails", SPOOLING, reason="full")
    scene.fires("SpanbridgeRejectsRemoved", SPOOLING)


def test_an_mqtt_broker_forgets_the_session(scene: Scene) -> None:
    scene.lossy.kill()
    scene.lossy.start()
    scene.fires("SpanbridgeSessionLost", STUCK, source="edge")


def test_a_gateway_is_gone(scene: Scene) -> None:
    scene.gateways[SPOOLING].kill()
    scene.fires("SpanbridgeAway", SPOOLING)


def test_shortened_rules_differ_in_times_alone() -> None:
    def without_times(line: str) -> str:
        return re.sub(r"[\d.]+[ms]?", "", line)

    for file in (ALERTS, LAG):
        before, after = file.read_text().splitlines(), shortened(file.read_text()).splitlines()
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert changed
        assert not [new for new in after if re.search(r"\[\d+m\]|for: \d+m|offset \d+m", new)]
        assert [without_times(old) for old, _ in changed] == [without_times(new) for _, new in changed]
