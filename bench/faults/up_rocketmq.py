"""Scenarios of the way up in which RocketMQ, or the way to it, fails."""

from __future__ import annotations

import time

from bench.faults.actors import wait_until
from bench.faults.lab import Lab
from bench.faults.lab_up import uplink
from bench.faults.ledger import Row
from bench.faults.scenario import scenario

_AWAY = 20.0
_HUNG = 12.0


@scenario("calm", "nothing breaks: what the table is measured against")
def calm(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady(lab.seconds)
    way.expect("duplicates without a fault", way.ledger.duplicated() == 0)
    return way.row(name)


@scenario(
    "rocketmq-stopped",
    "RocketMQ is stopped for 20 s and started again",
    repeats=3,
    because="answers lost with the connection",
)
def rocketmq_stopped(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        lab.rocketmq.stop()
        time.sleep(_AWAY)
        lab.rocketmq.start()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "rocketmq-killed",
    "RocketMQ's broker and proxy are killed (SIGKILL) and started again",
    repeats=3,
    because="answers lost with the connection",
)
def rocketmq_killed(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        lab.rocketmq.kill()
        lab.rocketmq.start()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "rocketmq-hung",
    "RocketMQ accepts and never answers: the process is frozen",
    repeats=8,
    because="requests given up after 3 s that RocketMQ answers later",
)
def rocketmq_hung(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        lab.rocketmq.pause()
        time.sleep(_HUNG)
        lab.rocketmq.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "rocketmq-blackhole",
    "packets to RocketMQ are dropped, not refused (EMQX lost 97 % so: emqx#17916)",
    repeats=3,
    because="answers lost with the connection",
)
def rocketmq_blackhole(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        way.rocketmq_proxy.blackhole()
        time.sleep(_HUNG)
        way.rocketmq_proxy.resume()
        way.rocketmq_proxy.drop()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "rocketmq-refused",
    "RocketMQ refuses connections (EMQX lost 546 of 2 246 so, still 'connected': emqx#18951)",
    repeats=2,
    because="answers lost with the connection",
)
def rocketmq_refused(lab: Lab, name: str) -> Row:
    with uplink(
        lab,
    ) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        wait_until(lambda: not way.gateway.is_ready(), "health to turn", 15)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "rocketmq-throttled",
    "the line to RocketMQ carries 20 kB/s, a third of what is sent",
    repeats=4,
    because="requests given up after 3 s that arrive later",
)
def rocketmq_throttled(lab: Lab, name: str) -> Row:
    with uplink(
        lab,
    ) as way:
        way.steady()
        way.rocketmq_proxy.throttle(20_000)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "rocketmq-slow",
    "every answer of RocketMQ's takes half a second longer",
    repeats=4,
    because="requests given up after 3 s that arrive later",
)
def rocketmq_slow(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True, rate=100) as way:
        way.steady()
        way.rocketmq_proxy.delay(0.25)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(2)
    return way.row(name)


@scenario(
    "rocketmq-corrupted",
    "one byte is wrong in 5 % of the pieces of data that RocketMQ answers",
    repeats=20,
    because="answers that cannot be read",
)
def rocketmq_corrupted(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        way.rocketmq_proxy.corrupt_share(0.05, lab.rng)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "rocketmq-resets",
    "connections to RocketMQ are reset ten times a minute and more",
    repeats=5,
    because="answers lost with the connection",
)
def rocketmq_resets(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        for _ in range(max(3, int(lab.seconds / 2))):
            way.rocketmq_proxy.drop()
            way.returned()
            time.sleep(1.5)
    return way.row(name)


@scenario(
    "rocketmq-moved",
    "the first of two RocketMQ addresses goes away, and the second one comes",
    repeats=2,
    because="answers lost with the connection",
)
def rocketmq_moved(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True, spare=True) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        time.sleep(lab.seconds)
        way.rocketmq_spare.resume()
        way.returned()
        way.steady(5)
    return way.row(name)
