"""Two workers between real brokers: both ways, and through an outage, with one of them killed meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.faults.front import Front
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


def test_each_worker_has_a_spool_and_finds_the_protocol_after_its_death_in_an_outage(
    devstack: SharedStack, gateways: Callable[..., Gateway], devices: Callable[..., Device], tmp_path: Path
) -> None:
    mqtt, rocketmq, base = devstack.mqtt_v5, devstack.rocketmq, devstack.unique("spools")
    topic, spool = devstack.topic("FIFO"), tmp_path / "spool"
    with ExitStack() as exits:
        front = Front(rocketmq, "remoting", exits)
        route = f'''
[[routes]]
filter = "{base}/{{0}}/{{{{device}}}}"
topic = "{topic}"
message_group = "{{{{device}}}}"'''
        gateway = gateways(f"""
name = "{devstack.unique("gw")}"
[gateway]
workers = 2
[mqtt]
url = "mqtt://{mqtt.host}:{mqtt.port}"
backoff_maximum = 1
[rocketmq]
endpoints = "{front.endpoints}"
protocol = "auto"
[spool]
path = "{spool}"
spill_after = 1
reserve = 0
{route.format("a")}
{route.format("b")}
""")
        gateway.start()
        device = devices(mqtt.host, mqtt.port)

        def publish(begin: int, end: int) -> None:
            for number in range(begin, end):
                device.publish(f"{base}/{'ab'[number % 2]}/d{number % 4}", f"d{number % 4}:{number:03}")

        publish(0, 40)
        wait_until(lambda: len(set(bodies(rocketmq, topic))) == 40, "the first messages", gateway=gateway)
        front.refuse()
        publish(40, 120)
        wait_until(lambda: min(spooled(gateway)) >= 40, "both spools to have their messages", gateway=gateway)
        os.kill(gateway.status["workers"][0]["pid"], signal.SIGKILL)
        publish(120, 160)
        device.settle()
        wait_until(lambda: min(spooled(gateway)) >= 60, "the new worker to spool as well", gateway=gateway)
        front.resume()
        wait_until(lambda: set(device.published) == set(bodies(rocketmq, topic)), "all messages", 90, gateway=gateway)
        wait_until(lambda: spooled(gateway) == [0, 0], "empty spools", gateway=gateway)
        for name in {f"d{number}" for number in range(4)}:
            found = [body for body in bodies(rocketmq, topic) if body.startswith(f"{name}:")]
            assert list(dict.fromkeys(found)) == sorted(set(found)), "in order, the first copy of each"
        assert {one["status"]["rocketmq"]["protocol"] for one in gateway.status["workers"]} == {"remoting"}
        assert {one.name for one in spool.iterdir()} >= {"worker-1", "worker-2"}
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log


def spooled(gateway: Gateway) -> list[int]:
    """Messages in each worker's spool; none of a worker that is not there."""
    rows = [row["status"] or {} for row in gateway.status["workers"]]
    return [row.get("services", {}).get("spool", {}).get("messages", -1) for row in rows]
