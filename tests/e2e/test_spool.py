"""Store and forward on real brokers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge.devstack.rocketmq import RocketmqBroker
from spanbridge_context import TraceContext, inject_user_properties

from .harness import Device, Gateway, bodies, stored, wait_until

pytestmark = pytest.mark.brokers


def config(name: str, mqtt: str, rocketmq: str, base: str, topic: str, spool: Path) -> str:
    return f"""
name = "{name}"
[mqtt]
url = "mqtt://{mqtt}"
backoff_maximum = 1
[rocketmq]
endpoints = "{rocketmq}"
request_timeout = 1
[spool]
path = "{spool}"
spill_after = 1
reserve = 0
[[routes]]
filter = "{base}/+"
topic = "{topic}"
message_group = "{{topic[1]}}"
"""


def test_an_outage_and_a_restart_lose_nothing_and_keep_order_and_trace(
    rocketmq_broker: RocketmqBroker,
    mqtt_devstack: SharedStack,
    gateways: Callable[..., Gateway],
    devices: Callable[..., Device],
    tmp_path: Path,
) -> None:
    topic, base, name = (
        rocketmq_broker.create_topic(None, "FIFO"),
        mqtt_devstack.unique("s"),
        mqtt_devstack.unique("gw"),
    )
    mqtt, broker = mqtt_devstack.mqtt_v5, rocketmq_broker
    text = config(name, f"{mqtt.host}:{mqtt.port}", broker.endpoints, base, topic, tmp_path / "spool")
    gateway = gateways(text)
    gateway.start()
    device = devices(mqtt.host, mqtt.port)
    device.publish(f"{base}/0", "m-before")
    wait_until(lambda: bodies(broker, topic) == ["m-before"], "the first message", gateway=gateway)

    broker.kill()
    context = TraceContext.new()
    for number in range(600):
        user = inject_user_properties([], context) if number == 0 else None
        device.publish(f"{base}/{number % 3}", f"m-{number}", user=user)
    device.settle()
    wait_until(lambda: gateway.status["services"]["spool"]["messages"] == 600, "all in the spool", gateway=gateway)
    assert gateway.status["uplink"]["in_flight"] == 0, "the MQTT broker has its acknowledgements"

    gateway.kill()
    gateway.start(ready=False)
    assert "holds 600 message(s)" in gateway.log
    for number in range(600, 660):
        device.publish(f"{base}/{number % 3}", f"m-{number}")
    device.settle()
    broker.start()
    wait_until(lambda: len(set(bodies(broker, topic))) == 661, "everything in RocketMQ", 90, gateway=gateway)

    messages = stored(broker, topic)
    for group in range(3):
        found = [
            int(one.body[2:])
            for one in messages
            if one.properties["mqtt.topic"] == f"{base}/{group}" and one.body != b"m-before"
        ]
        assert list(dict.fromkeys(found)) == list(range(group, 660, 3)), "in order, the first copy of each"
    (first, *_) = [one for one in messages if one.body == b"m-0"]
    assert first.properties["traceparent"][3:35] == context.trace_id
    wait_until(lambda: gateway.status["services"]["spool"]["messages"] == 0, "an empty spool", gateway=gateway)
    device.publish(f"{base}/0", "m-after")
    wait_until(lambda: "m-after" in bodies(broker, topic), "a message that goes straight through", gateway=gateway)
    assert gateway.stop() == 0
    assert "internal error" not in gateway.log
    assert "Traceback" not in gateway.log
