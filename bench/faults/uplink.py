"""Scenarios of the way up: MQTT to RocketMQ."""

from __future__ import annotations

import time
from pathlib import Path

from bench.faults.actors import wait_until
from bench.faults.lab import Lab, Uplink
from bench.faults.ledger import Row
from bench.faults.scenario import scenario

_AWAY = 20.0
_HUNG = 12.0
_KILLS = 50


@scenario("calm", "nothing breaks: what the table is measured against")
def calm(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady(lab.seconds)
    way.expect("duplicates without a fault", way.ledger.duplicated() == 0)
    return way.row(name)


@scenario("rocketmq-stopped", "RocketMQ is stopped for 20 s and started again")
def rocketmq_stopped(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        lab.rocketmq.stop()
        time.sleep(_AWAY)
        lab.rocketmq.start()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("rocketmq-killed", "RocketMQ's broker and proxy are killed (SIGKILL) and started again")
def rocketmq_killed(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        lab.rocketmq.kill()
        lab.rocketmq.start()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("rocketmq-hung", "RocketMQ accepts and never answers: the process is frozen")
def rocketmq_hung(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        lab.rocketmq.pause()
        time.sleep(_HUNG)
        lab.rocketmq.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("rocketmq-blackhole", "packets to RocketMQ are dropped, not refused (EMQX lost 97 % so: emqx#17916)")
def rocketmq_blackhole(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        way.rocketmq_proxy.blackhole()
        time.sleep(_HUNG)
        way.rocketmq_proxy.resume()
        way.rocketmq_proxy.drop()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("rocketmq-refused", "RocketMQ refuses connections (EMQX lost 546 of 2 246 so, still 'connected': emqx#18951)")
def rocketmq_refused(lab: Lab, name: str) -> Row:
    with lab.uplink() as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        wait_until(lambda: not way.gateway.is_ready(), "health to turn", 15)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("rocketmq-throttled", "the line to RocketMQ carries 20 kB/s, a third of what is sent")
def rocketmq_throttled(lab: Lab, name: str) -> Row:
    with lab.uplink() as way:
        way.steady()
        way.rocketmq_proxy.throttle(20_000)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("rocketmq-slow", "every answer of RocketMQ's takes half a second longer")
def rocketmq_slow(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True, rate=100) as way:
        way.steady()
        way.rocketmq_proxy.delay(0.25)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(2)
    return way.row(name)


@scenario("rocketmq-corrupted", "one byte is wrong in 5 % of the pieces of data that RocketMQ answers")
def rocketmq_corrupted(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        way.rocketmq_proxy.corrupt_share(0.05, lab.rng)
        time.sleep(lab.seconds)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("rocketmq-resets", "connections to RocketMQ are reset ten times a minute and more")
def rocketmq_resets(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        for _ in range(max(3, int(lab.seconds / 2))):
            way.rocketmq_proxy.drop()
            way.returned()
            time.sleep(1.5)
    return way.row(name)


@scenario("mqtt-restarted", "the MQTT broker is restarted, and keeps sessions and messages")
def mqtt_restarted(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        for _ in range(2):
            way.mqtt.restart()
            way.returned()
            way.steady(3)
    return way.row(name)


@scenario("mqtt-session-lost", "the MQTT broker is restarted without its files: the gateway's session is gone")
def mqtt_session_lost(lab: Lab, name: str) -> Row:
    with lab.uplink() as way:
        way.steady()
        way.fleet.pause()  # what a broker forgets, nobody has: only what the gateway holds is its own
        way.fleet.settle()
        wait_until(lambda: way.gateway.get("/status")[1]["uplink"]["in_flight"] == 0, "nothing in flight")
        way.mqtt.kill()
        _forget(way)
        way.mqtt.start()
        wait_until(way.gateway.is_ready, "the gateway to subscribe again")
        way.returned()
        way.fleet.begin(way.rate)
        time.sleep(4)
    return way.row(name)


def _forget(way: Uplink) -> None:
    for service in way.mqtt.services:
        for found in Path(service.directory).glob("*.db"):
            found.unlink()


@scenario("mqtt-hung", "the MQTT broker accepts and does not answer for 12 s")
def mqtt_hung(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        way.mqtt_proxy.hang()
        time.sleep(_HUNG)
        way.mqtt_proxy.resume()
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("mqtt-half-closed", "the MQTT broker's side of the gateway's connection is closed, ours is not")
def mqtt_half_closed(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        for _ in range(3):
            way.steady()
            way.mqtt_proxy.half_close()
            way.returned()
        way.steady(3)
    return way.row(name)


@scenario("mqtt-resets", "the gateway's connection to the MQTT broker is reset again and again")
def mqtt_resets(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        for _ in range(max(4, int(lab.seconds))):
            way.mqtt_proxy.drop()
            time.sleep(1)
        way.returned()
        way.steady(2)
    return way.row(name)


@scenario("both-away", "MQTT broker and RocketMQ are out of reach at once")
def both_away(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
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


@scenario("gateway-killed", f"the gateway is killed (SIGKILL) {_KILLS} times under load")
def gateway_killed(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        for _ in range(_KILLS):
            way.gateway.kill()
            way.gateway.start(ready=False)
            time.sleep(lab.rng.uniform(0.6, 2.0))
        way.returned()
        way.steady(4)
    way.notes.append(f"{_KILLS} kills")
    return way.row(name)


@scenario("sigterm-in-outage", "the gateway is stopped while RocketMQ is away, and started again")
def sigterm_in_outage(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True, settings="", route="") as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        time.sleep(3)
        way.expect("an orderly stop in an outage", way.gateway.stop() == 0)
        way.gateway.start(ready=False)
        time.sleep(2)
        way.rocketmq_proxy.resume()
        way.returned()
        way.steady(6)
    return way.row(name)


@scenario("missing-topic", "a device names a RocketMQ topic that is missing, beside good ones")
def missing_topic(lab: Lab, name: str) -> Row:
    other = lab.rocketmq.create_topic(None, "NORMAL", queues=1)
    route = f'[[routes]]\nfilter = "other/{{name}}"\ntopic = "{{name}}"\n[uplink]\nrejected_topic = "{other}"'
    with lab.uplink(fifo=True, route=route) as way:
        way.steady()
        for number in range(200):
            way.fleet.publish_raw(f"other/missing-{way.run}-{number % 5}", b"to nowhere")
        way.returned()
        way.steady(4)
    return way.row(name)


@scenario("poison", "messages that RocketMQ never takes, in the middle of batches")
def poison(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        for _ in range(100):
            way.fleet.publish_raw(f"{way.run}//t", b"no device: no message group")
            time.sleep(0.02)
        way.fleet.publish_raw(f"{way.run}/0/t", b"x" * (5 << 20))
        way.steady(4)
    return way.row(name)


@scenario("burst", "ten times the rate for some seconds")
def burst(lab: Lab, name: str) -> Row:
    with lab.uplink(rate=300) as way:
        way.steady()
        way.fleet.pause()
        way.fleet.begin(3000)
        time.sleep(min(lab.seconds, 6))
        way.fleet.pause()
        way.fleet.begin(300)
        way.returned()
        way.steady(3)
    return way.row(name)


@scenario("many-topics", "20 000 devices, each with a topic of its own")
def many_topics(lab: Lab, name: str) -> Row:
    with lab.uplink(rate=2000, devices=20_000) as way:
        way.steady(max(11.0, lab.seconds))
    return way.row(name)


@scenario("rocketmq-moved", "the first of two RocketMQ addresses goes away, and the second one comes")
def rocketmq_moved(lab: Lab, name: str) -> Row:
    with lab.uplink(fifo=True) as way:
        way.steady()
        way.rocketmq_proxy.refuse()
        time.sleep(lab.seconds)
        way.rocketmq_spare.resume()
        way.returned()
        way.steady(5)
    return way.row(name)


@scenario("clock-set", "the gateway's clock is set a day ahead, a day back, and right again")
def clock_set(lab: Lab, name: str) -> Row:
    file = lab.directory / f"{name}.clock"
    file.write_text("0")
    shim = str(Path(__file__).with_name("clock"))
    environment = {"PYTHONPATH": shim, "SPANBRIDGE_FAULTS_CLOCK": str(file)}
    with lab.uplink(fifo=True, environment=environment) as way:
        for days in (1, -1, 0):
            way.steady()
            file.write_text(str(days * 86_400))
            way.steady(3)
            way.expect(f"ready with the clock set by {days} days", way.gateway.is_ready())
            way.expect(f"alive with the clock set by {days} days", way.gateway.get("/livez")[0] == 200)
    return way.row(name)
