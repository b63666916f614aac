"""Scenarios of the spool: in the list where the gateway has one."""

from __future__ import annotations

import time
from importlib.util import find_spec

from bench.faults.actors import wait_until
from bench.faults.lab import Lab
from bench.faults.lab_up import Uplink, uplink
from bench.faults.ledger import Row
from bench.faults.scenario import SCENARIOS, Scenario
from bench.faults.up_mqtt import forget

_AWAY, _AWAY_LONG = 20.0, 600.0
_BACKLOG = 3000
_NARROW = 10_000
"""Bytes a second, less than comes: the spool empties at one end and fills at the other."""
_TAKEN_BACK = "requests given up when their messages went to the spool"
_NOT_NOTED = "sent out of the spool, not yet noted there when the gateway was killed"


def _settings(lab: Lab, more: str = "") -> str:
    path = (lab.directory / lab.prefix / "spool").resolve()
    return f'[spool]\npath = "{path}"\nspill_after = 2\nreserve = 0\n{more}'


def _spooled(way: Uplink) -> int:
    return way.gateway.see("spool", "messages") or 0


def _empties(way: Uplink) -> None:
    """End the traffic and wait until the spool is empty: the row says how long that took."""
    way.fleet.pause()
    begun = time.monotonic()
    way.wait_complete(lambda: way.gateway.see("spool", "messages") == 0, lambda: _spooled(way))
    way.notes.append(f"the spool was empty after {time.monotonic() - begun:.0f} s")


def away(lab: Lab, name: str) -> Row:
    """RocketMQ is away for long."""
    with uplink(lab, fifo=True, queues=1, settings=_settings(lab)) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        time.sleep(_AWAY_LONG if lab.long else _AWAY)
        held = _spooled(way)
        way.notes.append(f"{held} messages in the spool")
        way.expect("nothing was spooled", held > 0)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(2)
        _empties(way)
    return way.row(name)


def alone(lab: Lab, name: str) -> Row:
    """The spool is all there is: the MQTT broker forgets."""
    with uplink(lab, fifo=True, queues=1, settings=_settings(lab)) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        way.steady(lab.seconds)
        way.fleet.pause()
        way.fleet.settle()
        wait_until(lambda: way.gateway.see("uplink", "in_flight") == 0 and _spooled(way) > 0, "all to be spooled")
        time.sleep(1)  # for acknowledgements on their way
        way.mqtt.kill()
        way.gateway.kill()
        forget(way)
        way.mqtt.start()
        way.gateway.start(ready=False)
        way.gateway.wait_listening()
        way.rocketmq_proxy.resume()
        way.returned()
        _empties(way)
    return way.row(name)


def spilling_killed(lab: Lab, name: str) -> Row:
    """Killed while it writes to the spool."""
    with uplink(lab, fifo=True, queues=1, settings=_settings(lab)) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        way.kill_often(2.5)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
        _empties(way)
    return way.row(name)


def draining_killed(lab: Lab, name: str) -> Row:
    """Killed while it reads from the spool."""
    with uplink(lab, fifo=True, queues=1, settings=_settings(lab)) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        way.fleet.pause()
        way.fleet.begin(10 * way.rate)
        wait_until(lambda: _spooled(way) >= _BACKLOG, f"{_BACKLOG} messages in the spool", 90)
        way.fleet.pause()
        way.fleet.begin(way.rate)
        way.rocketmq_proxy.resume()
        way.rocketmq_proxy.throttle(_NARROW)
        way.kill_often(1.0)
        way.expect("the spool was empty before the last kill", _spooled(way) > 0)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(2)
        _empties(way)
    return way.row(name)


def draining_silent(lab: Lab, name: str) -> Row:
    """The line goes dead, without a reset, while the spool empties."""
    with uplink(lab, fifo=True, queues=1, settings=_settings(lab)) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        way.fleet.pause()
        way.fleet.begin(10 * way.rate)
        wait_until(lambda: _spooled(way) >= _BACKLOG, f"{_BACKLOG} messages in the spool", 90)
        way.fleet.pause()
        way.rocketmq_proxy.resume()
        wait_until(lambda: 0 < _spooled(way) < _BACKLOG - 50, "it to empty in part", 60, every=0.02)
        way.rocketmq_proxy.blackhole()
        way.expect("the spool was empty too early for this to show anything", _spooled(way) > 0)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.rocketmq_proxy.drop()
        way.returned()
        way.fleet.begin(way.rate)
        way.steady(2)
        _empties(way)
    return way.row(name)


def disk_full(lab: Lab, name: str) -> Row:
    """The spool has no room: what it does not take stays with the MQTT broker."""
    small = 'max_bytes = "1MiB"\nsegment_bytes = "64KiB"'
    with uplink(lab, fifo=True, queues=1, settings=_settings(lab, small)) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        way.steady(3)
        for number in range(400):
            way.fleet.publish_raw(f"{way.run}/{number % 10}/t", b"x" * 4096)
        way.steady(lab.seconds)
        size = way.gateway.see("spool", "bytes") or 0
        way.notes.append(f"{size / 2**20:.2f} MiB in the spool")
        way.expect(f"the spool has {size} bytes: more than its limit, or not full", 0.7 * 2**20 < size <= 2**20)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(3)
        _empties(way)
    return way.row(name)


_ALL = (
    Scenario("rocketmq-away-with-spool", "RocketMQ refuses for 20 s (--long: 10 minutes)", away, 2, _TAKEN_BACK),
    Scenario(
        "mqtt-lost-while-spooled",
        "RocketMQ is away; MQTT broker and gateway are killed, the broker's files are removed: the spool has it all",
        alone,
        2,
        _TAKEN_BACK,
    ),
    Scenario(
        "spilling-killed",
        "the gateway is killed (SIGKILL) 50 times while it spools",
        spilling_killed,
        50,
        "spooled, and not yet acknowledged to the MQTT broker when it was killed",
    ),
    Scenario(
        "draining-killed",
        "the gateway is killed (SIGKILL) 50 times while the spool empties",
        draining_killed,
        50,
        _NOT_NOTED,
    ),
    Scenario(
        "draining-silent",
        "packets to RocketMQ are dropped while the spool empties (NanoMQ loses what it resent: nanomq#2432)",
        draining_silent,
        4,
        "stored, and the answer was dropped",
    ),
    Scenario("disk-full", "RocketMQ is away and the spool is full: the MQTT broker keeps", disk_full, 2, _TAKEN_BACK),
)

if find_spec("spanbridge.config.models.spool") is not None:
    SCENARIOS.update((one.name, one) for one in _ALL)
