"""Scenarios of the way up in which the gateway is killed, or given what it cannot forward or hardly carry."""

from __future__ import annotations

import time
from pathlib import Path

from bench.faults.lab import Lab
from bench.faults.lab_up import uplink
from bench.faults.ledger import Row
from bench.faults.scenario import scenario


@scenario(
    "gateway-killed",
    "the gateway is killed (SIGKILL) 50 times under load",
    repeats=50,
    because="stored in RocketMQ, not acknowledged yet when it was killed",
)
def gateway_killed(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        way.kill_often(1.0)
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario(
    "sigterm-in-outage",
    "the gateway is stopped while RocketMQ is away, and started again",
    repeats=3,
    because="answers lost with the connection",
)
def sigterm_in_outage(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True, settings='[uplink]\ndrain_timeout = "5s"') as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        time.sleep(3)
        way.expect("an orderly stop in an outage", way.gateway.stop() == 0)
        way.gateway.start(ready=False)
        way.gateway.wait_listening()
        time.sleep(2)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(6)
    return way.row(name)


@scenario("missing-topic", "a device names a RocketMQ topic that is missing, beside good ones")
def missing_topic(lab: Lab, name: str) -> Row:
    other = lab.rocketmq.create_topic(None, "NORMAL", queues=1)
    route = f'[[routes]]\nfilter = "other/{{name}}"\ntopic = "{{name}}"\n[uplink]\nrejected_topic = "{other}"'
    with uplink(lab, fifo=True, route=route) as way:
        way.steady()
        for number in range(200):
            way.fleet.publish_raw(f"other/missing-{way.run}-{number % 5}", b"to nowhere")
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("poison", "messages that RocketMQ never takes, in the middle of batches")
def poison(lab: Lab, name: str) -> Row:
    with uplink(lab, fifo=True) as way:
        way.steady()
        for _ in range(100):
            way.fleet.publish_raw(f"{way.run}//t", b"no device: no message group")
            time.sleep(0.02)
        way.fleet.publish_raw(f"{way.run}/0/t", b"x" * (5 << 20))
        way.steady(4)
    return way.row(name)


@scenario("burst", "ten times the rate for some seconds")
def burst(lab: Lab, name: str) -> Row:
    with uplink(lab) as way:
        way.steady()
        way.fleet.pause()
        way.fleet.begin(10 * way.rate)
        time.sleep(min(lab.seconds, 6))
        way.fleet.pause()
        way.fleet.begin(way.rate)
        way.returned()
        way.steady(3)
    return way.row(name)


@scenario("many-topics", "20 000 devices, each with a topic of its own")
def many_topics(lab: Lab, name: str) -> Row:
    with uplink(lab, rate=2000, devices=20_000) as way:
        way.steady(max(11.0, lab.seconds))
    return way.row(name)


@scenario("clock-set", "the gateway's clock is set a day ahead, a day back, and right again")
def clock_set(lab: Lab, name: str) -> Row:
    file = lab.directory / f"{name}.clock"
    file.write_text("0")
    shim = str(Path(__file__).with_name("clock"))
    environment = {"PYTHONPATH": shim, "SPANBRIDGE_FAULTS_CLOCK": str(file)}
    with uplink(lab, fifo=True, environment=environment) as way:
        for days in (1, -1, 0):
            way.steady()
            file.write_text(str(days * 86_400))
            way.steady(3)
            way.expect(f"ready with the clock set by {days} days", way.gateway.is_ready())
            way.expect(f"alive with the clock set by {days} days", way.gateway.get("/livez")[0] == 200)
    return way.row(name)
