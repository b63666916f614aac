"""Scenarios of the way down: RocketMQ to MQTT."""

from __future__ import annotations

import time

from bench.faults.actors import wait_until
from bench.faults.lab import Lab
from bench.faults.lab_down import Downlink, downlink
from bench.faults.ledger import RECOVERY, Row
from bench.faults.scenario import scenario

_HUNG = 12.0
_UNANSWERED = "published, and not yet acknowledged to RocketMQ"


@scenario("downlink-calm", "nothing breaks")
def calm(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.steady(lab.seconds)
    return way.row(name)


@scenario(
    "downlink-gateway-killed",
    "the gateway is killed (SIGKILL) 50 times while it publishes",
    repeats=50,
    because=_UNANSWERED,
)
def gateway_killed(lab: Lab, name: str) -> Row:
    with downlink(lab) as way:
        way.steady()
        way.kill_often(1.0)
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "downlink-rocketmq-restarted",
    "RocketMQ is killed (SIGKILL) and started again",
    repeats=3,
    because="acknowledgements to RocketMQ lost with the connection",
)
def rocketmq_restarted(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.steady()
        lab.rocketmq.kill()
        lab.rocketmq.start()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "downlink-rocketmq-resets",
    "connections to RocketMQ are reset ten times a minute and more",
    repeats=5,
    because="acknowledgements to RocketMQ lost with the connection",
)
def rocketmq_resets(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.steady()
        for _ in range(max(3, int(lab.seconds / 2))):
            way.rocketmq_proxy.drop()
            time.sleep(1.5)
        way.steady(2)
    return way.row(name)


@scenario(
    "downlink-mqtt-restarted",
    "the MQTT broker is restarted, and keeps sessions and messages",
    repeats=3,
    because="PUBACKs lost with the connection",
)
def mqtt_restarted(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.steady()
        for _ in range(2):
            way.mqtt.restart()
            way.returned()
            way.steady(3)
    return way.row(name)


@scenario(
    "downlink-mqtt-hung",
    f"the MQTT broker accepts and does not answer for {_HUNG:g} s",
    repeats=3,
    because="publications that the MQTT broker gets late, and again",
)
def mqtt_hung(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.steady()
        way.mqtt_proxy.hang()
        time.sleep(_HUNG)
        way.mqtt_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "downlink-mqtt-resets",
    "the gateway's connection to the MQTT broker is reset again and again",
    repeats=6,
    because="PUBACKs lost with the connection",
)
def mqtt_resets(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.steady()
        for _ in range(max(4, int(lab.seconds))):
            way.mqtt_proxy.drop()
            time.sleep(1)
        way.returned()
        way.steady(2)
    return way.row(name)


@scenario("downlink-device-away", "one of ten devices is away, with a session; the others are not held up")
def device_away(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.steady()
        way.devices[0].leave()
        way.steady(lab.seconds)
        _others_are_served(way)
        way.devices[0].connect()
        way.returned()
        way.steady(2)
    return way.row(name)


@scenario("downlink-device-gone", 'one of ten devices has never been there, and comes late (`away = "retry"`)')
def device_gone(lab: Lab, name: str) -> Row:
    with downlink(lab, absent=1, away="retry") as way:
        way.steady(lab.seconds)
        _others_are_served(way)
        way.devices[0].connect()
        way.returned()
        way.steady(2)
    return way.row(name)


@scenario("downlink-device-slow", "one of ten devices takes 0.3 s for a message, three times as long as they come")
def device_slow(lab: Lab, name: str) -> Row:
    with downlink(lab, fifo=True) as way:
        way.devices[0].delay = 0.3
        way.steady(lab.seconds)
        _others_are_served(way)
        way.devices[0].delay = 0.0
        way.steady(2)
    return way.row(name)


def _others_are_served(way: Downlink) -> None:
    others = range(1, len(way.devices))
    slowest = max(way.delay(device) for device in others)
    way.notes.append(f"the others waited {slowest:.2f} s at most")
    way.expect(f"the others waited {slowest:.1f} s", slowest <= RECOVERY)
    counts = [sum(one.number.device == device for one in list(way.arrived)) for device in others]
    way.expect(f"the others got {counts}", min(counts) > 0)


@scenario(
    "downlink-sigterm",
    "the gateway is stopped while the MQTT broker hangs; a second one gets the rest at once, not after 10 minutes",
    repeats=1,
    because="publications that the hung broker gets after all",
)
def sigterm(lab: Lab, name: str) -> Row:
    with downlink(lab, settings='[downlink]\ninvisible_time = "10m"\ndrain_timeout = "1s"') as way:
        way.steady()
        way.mqtt_proxy.hang()
        time.sleep(2)
        way.sender.pause()  # what comes after the return was in the first gateway's hands
        wait_until(lambda: (way.gateway.see("downlink", "in_flight") or 0) > 0, "messages in flight")
        way.expect("an orderly stop", way.gateway.stop() == 0)
        way.mqtt_proxy.resume()
        way.gateway.start()
        way.returned()
        way.steady(2)
    return way.row(name)
