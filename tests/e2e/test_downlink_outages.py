"""The way down when somebody is away: a device that nobody knows yet, and RocketMQ itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spanbridge.devstack import FaultProxy
from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.devstack.rocketmq import RocketmqBroker

from .commands import Command, Commander, Link, Receiver, address_of
from .harness import Gateway, wait_until

pytestmark = pytest.mark.brokers


@pytest.mark.mosquitto  # others need not say that nobody subscribes
def test_a_command_for_a_device_that_is_away_is_tried_again_until_it_is_back(
    devstack: SharedStack, gateways: Callable[..., Gateway], receivers: Callable[..., Receiver], commander: Commander
) -> None:
    link = Link(devstack, address_of(devstack.mqtt_v5))
    topic = link.add("{key}", 'away = "retry"')
    gateway = gateways(link.text)
    gateway.start()
    device = receivers(devstack.mqtt_v5, f"{link.base}/a")
    device.leave()  # its session ends with its connection, and so nobody subscribes
    other = receivers(devstack.mqtt_v5, f"{link.base}/b")  # by the second answer to it the broker knows that one left
    commander.send(topic, Command("a1", key="a"), Command("b1", key="b"))
    wait_until(lambda: gateway.status["downlinks"][0]["nacked"] > 0, "nobody to have it", gateway=gateway)
    wait_until(lambda: "b1" in other.bodies, "the command of the one that is there", gateway=gateway)
    assert device.bodies == []
    device.connect()
    wait_until(lambda: "a1" in device.bodies, "the command to come again", timeout=120, gateway=gateway)
    wait_until(lambda: gateway.status["downlink"]["in_flight"] == 0, "its acknowledgement", gateway=gateway)
    row = gateway.status["downlinks"][0]
    assert row["published"] >= 2
    assert (row["rejected"], row["dropped"]) == (0, 0)
    assert "no_matching_subscribers" in row["reasons"]
    assert set(other.bodies) == {"b1"}


@pytest.mark.timeout(500)  # two JVMs start, one after the other: 150 s each were seen on two cores with a load of 20
def test_a_rocketmq_restart_loses_no_command_and_keeps_the_order_of_groups(
    rocketmq_broker: RocketmqBroker,
    mqtt_devstack: SharedStack,
    gateways: Callable[..., Gateway],
    receivers: Callable[..., Receiver],
) -> None:
    mqtt = mqtt_devstack.mqtt_v5
    with FaultProxy(mqtt.host, mqtt.port) as proxy:
        extra = '[downlink]\ninvisible_time = "10s"'
        link = Link(mqtt_devstack, f"{proxy.host}:{proxy.port}", extra=extra, rocketmq=rocketmq_broker)
        topic = link.add("{message_group}", kind="FIFO")
        gateway = gateways(link.text)
        gateway.start()
        device = receivers(mqtt, f"{link.base}/#")
        proxy.hang()
        send(rocketmq_broker, topic, range(10))
        wait_until(lambda: gateway.status["downlink"]["in_flight"] > 0, "commands in hand", gateway=gateway)
        rocketmq_broker.kill()
        wait_until(lambda: gateway.get("/readyz")[0] == 503, "health to turn", gateway=gateway)
        assert gateway.get("/livez")[0] == 200
        proxy.resume()  # what the gateway has is published now, and cannot be acknowledged
        rocketmq_broker.start()
        send(rocketmq_broker, topic, range(10, 20))
        expected = {f"{group}{number}" for group in "abc" for number in range(20)}
        wait_until(lambda: set(device.bodies) == expected, "every command", timeout=120, gateway=gateway)
        for group in "abc":
            # What came twice may come between later ones: order is that of the first copies.
            first = dict.fromkeys(body for body in device.bodies if body.startswith(group))
            assert list(first) == [f"{group}{number}" for number in range(20)]
        wait_until(gateway.is_ready, "recovery", gateway=gateway)
        assert "Traceback" not in gateway.log


def send(rocketmq: RocketmqBroker, topic: str, numbers: range) -> None:
    """Commands of three message groups in turn, on a connection made now."""
    with Commander(rocketmq.endpoints) as commander:
        commander.send(topic, *(Command(f"{group}{n}", group=group) for n in numbers for group in "abc"))
