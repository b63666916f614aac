"""A gateway of two workers as real processes on a real MQTT broker: what signals, and deaths, come to."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from spanbridge.devstack.mqtt import MqttBroker
from tests.e2e.harness import Device, Gateway, wait_until

from .conftest import CountingRocketmq

pytestmark = [pytest.mark.brokers, pytest.mark.mosquitto]

MakeGateway = Callable[..., Gateway]
MakeDevice = Callable[..., Device]

FILE = """
name = "{name}"
[gateway]
workers = 2
{gateway}
[mqtt]
url = "mqtt://{mqtt}"
backoff_maximum = 0.5
[rocketmq]
endpoints = "{rocketmq}"
backoff_maximum = 0.5
[[routes]]
filter = "plant/{{line}}"
topic = "readings"
{more}
"""


def config(mqtt: MqttBroker, rocketmq: CountingRocketmq, *, gateway: str = "", more: str = "", name: str = "gw") -> str:
    address = f"{mqtt.host}:{mqtt.port}"
    return FILE.format(name=name, mqtt=address, rocketmq=rocketmq.proxy.address, gateway=gateway, more=more)


def workers(gateway: Gateway) -> list[dict[str, Any]]:
    found = gateway.status["workers"]
    assert isinstance(found, list)
    return found


def test_death_reload_and_stop_under_load_lose_nothing(
    mqtt_broker: MqttBroker, counting_rocketmq: CountingRocketmq, gateways: MakeGateway, devices: MakeDevice
) -> None:
    gateway = gateways(config(mqtt_broker, counting_rocketmq))
    gateway.start()
    device = devices(mqtt_broker.host, mqtt_broker.port)
    stream = device.stream("plant/{}", 1500, rate=150)
    wait_until(lambda: all(row["received"] for row in workers(gateway)), "both to take part", gateway=gateway)
    kill_a_worker(gateway)
    change_the_configuration(gateway, mqtt_broker, counting_rocketmq)
    pids = [row["pid"] for row in workers(gateway)]
    assert gateway.stop() == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert "stopping (SIGTERM): 2 worker(s) drain, for up to 30 s" in gateway.log
    gateway.start()
    stream.join(60)
    device.publish("hall/7", "by the new route")
    device.settle()
    wait_until(lambda: set(counting_rocketmq.bodies) >= set(device.published), "all messages", gateway=gateway)
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log


def kill_a_worker(gateway: Gateway) -> None:
    """The second one is killed, and another one comes for it."""
    victim = workers(gateway)[1]["pid"]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: workers(gateway)[1]["pid"] not in (None, victim), "another worker", gateway=gateway)
    wait_until(gateway.is_ready, "the gateway to be ready again", gateway=gateway)
    assert "worker 2 was killed by SIGKILL; it is started again in" in gateway.log
    assert workers(gateway)[1]["restarts"] == 1
    metrics = gateway.text("/metrics")
    assert 'spanbridge_workers_deaths_total{worker="2"' in metrics
    assert metrics.count("spanbridge_build_info{") == 1
    of_processes = [line for line in metrics.splitlines() if line.startswith("process_cpu_seconds_total{")]
    assert len(of_processes) == 3, "two workers and their supervisor"


def change_the_configuration(gateway: Gateway, mqtt: MqttBroker, rocketmq: CountingRocketmq) -> None:
    """A file that is valid is taken over by both, one that is not by none."""
    shown = gateway.reload(config(mqtt, rocketmq, more='[[routes]]\nfilter = "hall/{door}"\ntopic = "doors"\n'))
    assert (shown["reloads"], shown["last_error"]) == (1, None)

    def filters() -> set[tuple[int, str, int | None]]:
        rows = gateway.status["mqtt"]
        return {(row["worker"], one["filter"], one["granted_qos"]) for row in rows for one in row["subscriptions"]}

    both = {(worker, f"$share/gw/{name}/+", 1) for worker in (1, 2) for name in ("plant", "hall")}
    wait_until(lambda: filters() == both, "the new subscription", gateway=gateway)
    good, pids = gateway.file.read_text(), [row["pid"] for row in workers(gateway)]
    shown = gateway.reload(config(mqtt, rocketmq, more="[[routes]]\nfilter = 7\n"))
    assert "routes[1].filter: must be text" in shown["last_error"]
    assert (filters(), [row["pid"] for row in workers(gateway)]) == (both, pids)
    for text in ("is in force", "routes[1].filter", "the former configuration stays in force"):
        assert gateway.log.count(text) == 1, "told once, not by each worker"
    gateway.file.write_text(good)


def test_one_worker_to_a_filter_keeps_order_and_a_session_from_before_gives_up_what_is_anothers(
    mqtt_broker: MqttBroker, counting_rocketmq: CountingRocketmq, gateways: MakeGateway, devices: MakeDevice
) -> None:
    names = [f"line-{number}" for number in range(6)]
    more = "".join(f'[[routes]]\nfilter = "{name}/+"\ntopic = "{name}"\n' for name in names)
    text = config(mqtt_broker, counting_rocketmq, gateway='split = "filters"', more=more)
    gateway = gateways(text)
    gateway.start()

    def takers() -> dict[str, int]:
        return {one["filter"]: row["worker"] for row in gateway.status["mqtt"] for one in row["subscriptions"]}

    before = takers()
    assert sorted(Counter(before.values()).values()) == [3, 4], "each filter is one worker's, and they are dealt evenly"
    gateway.stop()
    device = devices(mqtt_broker.host, mqtt_broker.port)
    gateway.write(text.replace("workers = 2", "workers = 3"))
    gateway.start()
    assert takers() != before
    wait_until(lambda: set(takers()) == set(before), "all filters to be taken", gateway=gateway)

    def alone(sent: int) -> bool:
        """Whether messages that are published now come once: former sessions have given up the others' filters."""
        body = f"probe-{sent}"
        for name in names:
            device.publish(f"{name}/x", f"{name}-{body}")
        device.settle()
        wait_until(lambda: set(counting_rocketmq.bodies) >= set(device.published), "the probes", gateway=gateway)
        return all(Counter(counting_rocketmq.bodies)[f"{name}-{body}"] == 1 for name in names)

    tries = iter(range(1000))
    wait_until(lambda: alone(next(tries)), "each message to come once", gateway=gateway)
    seen = len(counting_rocketmq.bodies)
    for number in range(100):
        device.publish(f"{names[number % 6]}/x", f"n-{number:04}")
    device.settle()
    wait_until(lambda: set(counting_rocketmq.bodies) >= set(device.published), "all messages", gateway=gateway)
    found = [body for body in counting_rocketmq.bodies[seen:] if body.startswith("n-")]
    for first in range(6):
        of_topic = [body for body in found if int(body[2:]) % 6 == first]
        assert of_topic == sorted(set(of_topic)), "in order, once"
    pids = [row["pid"] for row in workers(gateway)]
    gateway.kill()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the workers to end as well")
    assert "stopping (its supervisor is gone)" in gateway.log
