"""Two workers between real brokers: both ways, with one of them killed meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from spanbridge.devstack.pytest_plugin import SharedStack

from .commands import Command, Commander, Receiver
from .harness import Device, Gateway, bodies, wait_until

pytestmark = [pytest.mark.brokers, pytest.mark.mosquitto]


def test_two_workers_lose_nothing_and_keep_order_when_one_is_killed(
    devstack: SharedStack, gateways: Callable[..., Gateway], devices: Callable[..., Device]
) -> None:
    mqtt, rocketmq, base = devstack.mqtt_v5, devstack.rocketmq, devstack.unique("workers")
    plain, ordered, commands = devstack.topic(), devstack.topic("FIFO"), devstack.topic("FIFO")
    gateway = gateways(f"""
name = "{devstack.unique("gw")}"
[gateway]
workers = 2
[mqtt]
url = "mqtt://{mqtt.host}:{mqtt.port}"
[rocketmq]
endpoints = "{rocketmq.endpoints}"
[[routes]]
filter = "{base}/plain/+"
topic = "{plain}"
[[routes]]
filter = "{base}/a/{{device}}"
topic = "{ordered}"
message_group = "{{device}}"
[[routes]]
filter = "{base}/b/{{device}}"
topic = "{ordered}"
message_group = "{{device}}"
[[downlinks]]
topic = "{commands}"
consumer_group = "{devstack.group(fifo=True)}"
mqtt_topic = "{base}/down/{{key}}"
""")
    gateway.start()
    subscribed = [(row["worker"], one["filter"]) for row in gateway.status["mqtt"] for one in row["subscriptions"]]
    alone = {worker for worker, filter_ in subscribed if filter_ in (f"{base}/a/+", f"{base}/b/+")}
    assert alone == {1, 2}, "one ordered filter each"
    receiver = Receiver((mqtt.host, mqtt.port), (f"{base}/down/+",))
    device = devices(mqtt.host, mqtt.port)
    device.stream(base + "/plain/{}", 400, rate=200, prefix="plain").join(60)
    with Commander(rocketmq.endpoints) as commander:
        for number in range(60):
            device.publish(f"{base}/{'ab'[number % 2]}/d{number % 4}", f"d{number % 4}:{number:03}")
            commander.send(commands, Command(f"{number:03}", key=f"k{number % 3}", group=f"k{number % 3}"))
            if number == 30:
                victim = gateway.status["workers"][0]["pid"]
                os.kill(victim, signal.SIGKILL)
    device.settle()

    def stored() -> set[str]:
        return set(bodies(rocketmq, plain)) | set(bodies(rocketmq, ordered))

    wait_until(lambda: set(device.published) <= stored(), "all messages in RocketMQ", gateway=gateway)
    for name in {body.partition(":")[0] for body in device.published if ":" in body}:
        found = [body for body in bodies(rocketmq, ordered) if body.startswith(f"{name}:")]
        assert list(dict.fromkeys(found)) == sorted(set(found)), "in order, as often as they came"

    def arrived() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in list(receiver.arrived):
            found.setdefault(one.topic, []).append(one.body)
        return found

    wait_until(lambda: sum(len(set(one)) for one in arrived().values()) == 60, "all commands", gateway=gateway)
    for texts in arrived().values():
        assert list(dict.fromkeys(texts)) == sorted(set(texts)), "in order, as often as they came"
    receiver.leave()
    wait_until(gateway.is_ready, "both to be ready again", gateway=gateway)
    assert gateway.status["downlink"]["published"] > 0
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log
