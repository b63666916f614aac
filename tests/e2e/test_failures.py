"""What operators fear, on real brokers: nothing that was acknowledged to a device is lost."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable

import pytest

from spanbridge.devstack import FaultProxy
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.devstack.rocketmq import RocketmqBroker

from .harness import Device, Gateway, bodies, stored, wait_until

pytestmark = pytest.mark.brokers

MakeGateway = Callable[..., Gateway]
MakeDevice = Callable[..., Device]


def config(name: str, mqtt: str, rocketmq: str, base: str, topic: str, extra: str = "") -> str:
    return f"""
name = "{name}"
[mqtt]
url = "mqtt://{mqtt}"
backoff_maximum = 1
[rocketmq]
endpoints = "{rocketmq}"
{extra}
[[routes]]
filter = "{base}/+"
topic = "{topic}"
"""


def check_nothing_lost(device: Device, broker: RocketmqBroker, topic: str, gateway: Gateway) -> Counter[str]:
    """Every acknowledged message is in RocketMQ at least once; returns how often each is."""
    found: Counter[str] = Counter()

    def complete() -> bool:
        found.clear()
        found.update(bodies(broker, topic))
        return device.acknowledged <= set(found)

    wait_until(complete, "all acknowledged messages in RocketMQ", timeout=60, gateway=gateway)
    assert device.acknowledged
    assert "internal error" not in gateway.log
    return found


def test_a_gateway_killed_under_load_loses_nothing(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base, name = devstack.topic(), devstack.unique("k"), devstack.unique("gw")
    mqtt = devstack.mqtt_v5
    gateway = gateways(config(name, f"{mqtt.host}:{mqtt.port}", devstack.rocketmq.endpoints, base, topic))
    gateway.start()
    device = devices(mqtt.host, mqtt.port)
    load = device.stream(base + "/{}", 2000, rate=500)
    for _ in range(2):
        before = len(bodies(devstack.rocketmq, topic))
        wait_until(lambda before=before: len(bodies(devstack.rocketmq, topic)) > before + 100, "some load")
        gateway.kill()
        gateway.start(ready=False)
    load.join(30)
    device.settle()
    assert len(device.acknowledged) == 2000
    check_nothing_lost(device, devstack.rocketmq, topic, gateway)
    assert gateway.stop() == 0


def test_sigterm_under_load_drains_and_loses_nothing(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base, name = devstack.topic(), devstack.unique("t"), devstack.unique("gw")
    mqtt = devstack.mqtt_v5
    gateway = gateways(config(name, f"{mqtt.host}:{mqtt.port}", devstack.rocketmq.endpoints, base, topic))
    gateway.start()
    device = devices(mqtt.host, mqtt.port)
    load = device.stream(base + "/{}", 1500, rate=500)
    wait_until(lambda: len(bodies(devstack.rocketmq, topic)) > 100, "some load")
    assert gateway.stop() == 0
    assert "stopped: " in gateway.log
    assert "0 left with the MQTT broker" in gateway.log
    gateway.start(ready=False)
    load.join(30)
    device.settle()
    found = check_nothing_lost(device, devstack.rocketmq, topic, gateway)
    assert max(found.values()) == 1, "an orderly stop duplicates nothing"


def test_a_rocketmq_restart_under_load_loses_nothing_and_shows(
    rocketmq_broker: RocketmqBroker, devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base, name = rocketmq_broker.create_topic(), devstack.unique("r"), devstack.unique("gw")
    mqtt = devstack.mqtt_v5
    gateway = gateways(config(name, f"{mqtt.host}:{mqtt.port}", rocketmq_broker.endpoints, base, topic))
    gateway.start()
    device = devices(mqtt.host, mqtt.port)
    load = device.stream(base + "/{}", 3000, rate=300)
    wait_until(lambda: len(bodies(rocketmq_broker, topic)) > 100, "some load")
    rocketmq_broker.kill()
    wait_until(lambda: gateway.get("/readyz")[0] == 503, "health to turn")
    assert gateway.get("/livez")[0] == 200
    rocketmq_broker.start()
    wait_until(gateway.is_ready, "recovery")
    load.join(30)
    device.settle()
    check_nothing_lost(device, rocketmq_broker, topic, gateway)
    assert "Traceback" not in gateway.log
    assert gateway.log.count("send.failures") + gateway.log.count("failed: ") < 60, "log lines are rate-limited"


def test_a_rocketmq_that_hangs_turns_health_and_loses_nothing(
    rocketmq_broker: RocketmqBroker, devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base, name = rocketmq_broker.create_topic(), devstack.unique("h"), devstack.unique("gw")
    mqtt = devstack.mqtt_v5
    gateway = gateways(config(name, f"{mqtt.host}:{mqtt.port}", rocketmq_broker.endpoints, base, topic))
    gateway.start()
    device = devices(mqtt.host, mqtt.port)
    load = device.stream(base + "/{}", 1500, rate=300)
    wait_until(lambda: len(bodies(rocketmq_broker, topic)) > 100, "some load")
    rocketmq_broker.pause()
    try:
        wait_until(lambda: gateway.get("/readyz")[0] == 503, "health to turn")
    finally:
        rocketmq_broker.resume()
    wait_until(gateway.is_ready, "recovery")
    load.join(30)
    device.settle()
    check_nothing_lost(device, rocketmq_broker, topic, gateway)


@pytest.mark.mosquitto
def test_an_mqtt_broker_restart_under_load_loses_nothing(
    devstack: SharedStack, mqtt_brokers: Callable[..., MqttBroker], gateways: MakeGateway, devices: MakeDevice
) -> None:
    broker = mqtt_brokers(version="5", mqtt="mosquitto")
    topic, base, name = devstack.topic(), devstack.unique("b"), devstack.unique("gw")
    gateway = gateways(config(name, f"{broker.host}:{broker.port}", devstack.rocketmq.endpoints, base, topic))
    gateway.start()
    device = devices(broker.host, broker.port, client_id="persistent-device")
    load = device.stream(base + "/{}", 2000, rate=400)
    wait_until(lambda: len(bodies(devstack.rocketmq, topic)) > 100, "some load")
    broker.restart()
    wait_until(lambda: gateway.status["mqtt"][0]["link"] == "up", "the gateway to be back")
    load.join(30)
    device.settle()
    check_nothing_lost(device, devstack.rocketmq, topic, gateway)
    assert gateway.stop() == 0


def test_an_mqtt_connection_cut_under_load_loses_nothing(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    mqtt = devstack.mqtt_v5
    topic, base, name = devstack.topic(), devstack.unique("c"), devstack.unique("gw")
    with FaultProxy(mqtt.host, mqtt.port) as proxy:
        gateway = gateways(config(name, f"{proxy.host}:{proxy.port}", devstack.rocketmq.endpoints, base, topic))
        gateway.start()
        device = devices(mqtt.host, mqtt.port)
        load = device.stream(base + "/{}", 1500, rate=500)
        for count in (200, 500, 800):
            wait_until(lambda count=count: len(bodies(devstack.rocketmq, topic)) > count, f"{count} messages")
            proxy.drop()
        load.join(30)
        device.settle()
        check_nothing_lost(device, devstack.rocketmq, topic, gateway)


def test_malformed_packets_from_the_broker_are_named_and_survived(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    mqtt = devstack.mqtt_v5
    topic, base, name = devstack.topic(), devstack.unique("x"), devstack.unique("gw")
    with FaultProxy(mqtt.host, mqtt.port) as proxy:
        gateway = gateways(config(name, f"{proxy.host}:{proxy.port}", devstack.rocketmq.endpoints, base, topic))
        gateway.start()
        device = devices(mqtt.host, mqtt.port)
        proxy.corrupt("down", after=0, flip=0xFF)
        device.publish(f"{base}/a", "first")
        wait_until(lambda: "malformed" in gateway.log.lower() or "protocol" in gateway.log.lower(), "the log line")
        proxy.resume()
        wait_until(gateway.is_ready, "recovery", gateway=gateway)
        device.publish(f"{base}/a", "second")
        device.settle()
        check_nothing_lost(device, devstack.rocketmq, topic, gateway)
        assert "Traceback" not in gateway.log


def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    mqtt = devstack.mqtt_v5
    topic, base, name = devstack.topic(), devstack.unique("s"), devstack.unique("gw")
    broker = devstack.rocketmq
    with FaultProxy(broker.endpoints) as proxy:
        proxy.hang()
        extra = "follow_routes = false"
        gateway = gateways(config(name, f"{mqtt.host}:{mqtt.port}", proxy.endpoints, base, topic, extra))
        gateway.start(ready=False)
        wait_until(lambda: gateway.status["mqtt"][0]["link"] == "up", "the subscription", gateway=gateway)
        device = devices(mqtt.host, mqtt.port)
        for number in range(100):
            device.publish(f"{base}/{number % 7}", f"m{number}", qos=1 + number % 2)
        device.settle()
        wait_until(lambda: gateway.status["uplink"]["in_flight"] == 100, "all in flight", gateway=gateway)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping (SIGTERM)" in gateway.log, "the first signal's line")
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(10) == 1
        assert "100 message(s) stay with the MQTT broker" in gateway.log
        assert "Traceback" not in gateway.log
        assert "trying again" not in gateway.log.split("stopping (SIGTERM)")[1]
        proxy.resume()
        gateway.start()
        check_nothing_lost(device, broker, topic, gateway)
        assert gateway.stop() == 0


@pytest.mark.mosquitto
def test_gateways_that_share_a_subscription_forward_each_message_once(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    mqtt = devstack.mqtt_v5
    topic, base = devstack.topic(), devstack.unique("share")
    pair = []
    for _ in range(2):
        text = config(devstack.unique("gw"), f"{mqtt.host}:{mqtt.port}", devstack.rocketmq.endpoints, base, topic)
        gateway = gateways(text.replace("backoff_maximum", 'share = "pair"\ntopic_alias_maximum = 64\nbackoff_maximum'))
        gateway.start()
        pair.append(gateway)
    device = devices(mqtt.host, mqtt.port)
    device.stream(base + "/{}", 600, rate=1000).join(30)
    device.settle()
    found = check_nothing_lost(device, devstack.rocketmq, topic, pair[0])
    assert max(found.values()) == 1
    assert all(gateway.status["uplink"]["received"] > 0 for gateway in pair), "both took part"
    stored_messages = stored(devstack.rocketmq, topic)
    wrong = [m for m in stored_messages if m.properties["mqtt.topic"] != f"{base}/{int(m.body.decode()[2:]) % 10}"]
    assert not wrong, "topic aliases resolve to the right topics"
