"""Scenarios of the way up in which the MQTT broker, or the way to it, fails."""

from __future__ import annotations

import time
from pathlib import Path

from bench.faults.actors import wait_until
from bench.faults.lab import Lab
from bench.faults.lab_up import Uplink, uplink
from bench.faults.ledger import Row
from bench.faults.scenario import scenario

_HUNG = 12.0


@scenario(
    "mqtt-restarted",
    "the MQTT broker is restarted, and keeps sessions and messages",
    repeats=4,
    because="PUBACKs lost with the connection",
)
def mqtt_restarted(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        for _ in range(2):
            way.mqtt.restart()
            way.returned()
            way.steady(3)
    return way.row(name)


@scenario("mqtt-session-lost", "the MQTT broker is restarted without its files: the gateway's session is gone")
def mqtt_session_lost(lab: Lab, name: str) -> Row:
    with uplink(
        lab,
    ) as way:
        way.steady()
        way.fleet.pause()  # what a broker forgets, nobody has: only what the gateway holds is its own
        way.fleet.settle()
        wait_until(lambda: way.gateway.see("uplink", "in_flight") == 0, "nothing in flight")
        way.mqtt.kill()
        forget(way)
        way.mqtt.start()
        wait_until(way.gateway.is_ready, "the gateway to subscribe again")
        way.returned()
        way.fleet.begin(way.rate)
        time.sleep(4)
    return way.row(name)


def forget(way: Uplink) -> None:
    """Remove what the MQTT broker has on disk."""
    for service in way.mqtt.services:
        for found in Path(service.directory).glob("*.db"):
            found.unlink()


@scenario(
    "mqtt-hung",
    "the MQTT broker accepts and does not answer for 12 s",
    repeats=3,
    because="PUBACKs lost with the connection",
)
def mqtt_hung(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        way.mqtt_proxy.hang()
        time.sleep(_HUNG)
        way.mqtt_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "mqtt-half-closed",
    "the MQTT broker's side of the gateway's connection is closed, ours is not",
    repeats=3,
    because="PUBACKs lost with the connection",
)
def mqtt_half_closed(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        for _ in range(3):
            way.steady()
            way.mqtt_proxy.half_close()
            way.returned()
        way.steady(3)
    return way.row(name)


@scenario(
    "mqtt-resets",
    "the gateway's connection to the MQTT broker is reset again and again",
    repeats=6,
    because="PUBACKs lost with the connection",
)
def mqtt_resets(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        for _ in range(max(4, int(lab.seconds))):
            way.mqtt_proxy.drop()
            time.sleep(1)
        way.returned()
        way.steady(2)
    return way.row(name)


@scenario(
    "both-away",
    "MQTT broker and RocketMQ are out of reach at once",
    repeats=4,
    because="answers and PUBACKs lost with the connections",
)
def both_away(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        way.mqtt_proxy.refuse()
        time.sleep(lab.seconds)
        way.mqtt_proxy.resume()
        time.sleep(2)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)
