"""The gateway's main job, on real brokers: what a device publishes is what RocketMQ stores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spanbridge.devstack.pytest_plugin import SharedStack
from spanbridge_context import TraceContext, inject_topic, inject_user_properties, parse_traceparent

from .harness import Device, Gateway, bodies, stored, wait_until

pytestmark = pytest.mark.brokers

MakeGateway = Callable[..., Gateway]
MakeDevice = Callable[..., Device]


def config(devstack: SharedStack, routes: str, *, version: str = "5", extra: str = "") -> str:
    broker = devstack.mqtt_v5 if version == "5" else devstack.mqtt_v311
    return f"""
name = "{devstack.unique("gw")}"
[mqtt]
url = "mqtt://{broker.host}:{broker.port}"
version = "{version}"
[rocketmq]
endpoints = "{devstack.rocketmq.endpoints}"
{routes}
{extra}
"""


def route(filter_: str, topic: str, extra: str = "") -> str:
    return f'[[routes]]\nfilter = "{filter_}"\ntopic = "{topic}"\n{extra}\n'


def test_a_v5_message_arrives_with_its_context_and_properties(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base = devstack.topic(), devstack.unique("d")
    extra = 'tag = "{kind}"\nkeys = ["{device}"]'
    gateway = gateways(config(devstack, route(f"{base}/{{device}}/{{kind}}", topic, extra)))
    gateway.start()
    device = devices(devstack.mqtt_v5.host, devstack.mqtt_v5.port)
    context = TraceContext.new().replace(tracestate="vendor=1", baggage="tenant=7")
    device.publish(
        f"{base}/pump-1/temp",
        "21.5",
        user=[("unit", "C"), *inject_user_properties([], context)],
        ContentType="text/plain",
        ResponseTopic="reply/pump-1",
        CorrelationData=b"\x00\x01",
    )
    wait_until(lambda: len(stored(devstack.rocketmq, topic)) == 1, "the message", gateway=gateway)
    (message,) = stored(devstack.rocketmq, topic)
    found = message.properties
    assert message.body == b"21.5"
    sent = parse_traceparent(found["traceparent"])
    assert sent.trace_id == context.trace_id
    assert found["tracestate"] == "vendor=1"
    assert found["baggage"] == "tenant=7"
    assert (found["TAGS"], found["KEYS"]) == ("temp", "pump-1")
    expected = {
        "mqtt.topic": f"{base}/pump-1/temp",
        "mqtt.qos": "1",
        "mqtt.content-type": "text/plain",
        "mqtt.response-topic": "reply/pump-1",
        "mqtt.correlation-data": "AAE=",
        "mqtt.user.unit": "C",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "mqtt.user.tp" not in found


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_every_qos_of_both_versions_goes_through(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice, version: str, qos: int
) -> None:
    topic, base = devstack.topic(), devstack.unique("q")
    gateway = gateways(config(devstack, route(f"{base}/+", topic, f"qos = {qos}"), version=version))
    gateway.start()
    broker = devstack.mqtt_v5 if version == "5" else devstack.mqtt_v311
    device = devices(broker.host, broker.port, version=version)
    for number in range(20):
        device.publish(f"{base}/{number % 3}", f"m{number}", qos=qos)
    wait_until(lambda: len(bodies(devstack.rocketmq, topic)) >= 20, "20 messages", gateway=gateway)
    assert sorted(bodies(devstack.rocketmq, topic)) == sorted(device.published)
    assert gateway.stop() == 0


def test_a_v311_device_carries_its_context_in_the_topic(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base = devstack.topic(), devstack.unique("s")
    extra = 'carriers = ["topic-suffix"]'
    gateway = gateways(config(devstack, route(f"{base}/{{device}}", topic, extra), version="3.1.1"))
    gateway.start()
    device = devices(devstack.mqtt_v311.host, devstack.mqtt_v311.port, version="3.1.1")
    context = TraceContext.new()
    device.publish(inject_topic(f"{base}/pump", context), "x")
    device.publish(f"{base}/pump", "y")
    wait_until(lambda: len(bodies(devstack.rocketmq, topic)) == 2, "both messages", gateway=gateway)
    by_body = {message.body: message.properties for message in stored(devstack.rocketmq, topic)}
    assert by_body[b"x"]["mqtt.topic"] == by_body[b"y"]["mqtt.topic"] == f"{base}/pump"
    assert parse_traceparent(by_body[b"x"]["traceparent"]).trace_id == context.trace_id


def test_groups_keep_their_order_on_a_fifo_topic(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base = devstack.topic("FIFO"), devstack.unique("f")
    gateway = gateways(config(devstack, route(f"{base}/{{device}}", topic, 'message_group = "{device}"')))
    gateway.start()
    device = devices(devstack.mqtt_v5.host, devstack.mqtt_v5.port)
    for number in range(200):
        device.publish(f"{base}/{number % 5}", f"{number % 5}:{number}")
    wait_until(lambda: len(bodies(devstack.rocketmq, topic)) >= 200, "200 messages", gateway=gateway)
    groups: dict[str, list[int]] = {}
    for body in bodies(devstack.rocketmq, topic):
        group, number = body.split(":")
        groups.setdefault(group, []).append(int(number))
    assert len(groups) == 5
    assert all(numbers == sorted(numbers) and len(numbers) == 40 for numbers in groups.values())


def test_empty_retained_and_unroutable_messages(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, rest, base = devstack.topic(), devstack.topic(), devstack.unique("e")
    device = devices(devstack.mqtt_v5.host, devstack.mqtt_v5.port)
    device.publish(f"{base}/retained", "kept", retain=True)
    device.settle()
    routes = route(f"{base}/#", "{topic[1]|none}-no-such-topic") + route(f"{base}/+", topic)
    uplink = f'[uplink]\nunroutable_topic = "{rest}"'
    gateway = gateways(config(devstack, routes, extra=uplink))
    gateway.start()
    device.publish(f"{base}/empty", "")
    wait_until(lambda: len(stored(devstack.rocketmq, topic)) == 2, "two messages", gateway=gateway)
    by_topic = {message.properties["mqtt.topic"]: message for message in stored(devstack.rocketmq, topic)}
    assert by_topic[f"{base}/retained"].properties["mqtt.retain"] == "true"
    empty = by_topic[f"{base}/empty"]
    assert empty.body == b"\0"
    assert empty.properties["mqtt.empty"] == "true"


def test_status_and_metrics_show_what_went_through(
    devstack: SharedStack, gateways: MakeGateway, devices: MakeDevice
) -> None:
    topic, base = devstack.topic(), devstack.unique("m")
    gateway = gateways(config(devstack, route(f"{base}/+", topic)))
    gateway.start()
    device = devices(devstack.mqtt_v5.host, devstack.mqtt_v5.port)
    for number in range(10):
        device.publish(f"{base}/a", f"m{number}")
    wait_until(lambda: gateway.status["uplink"]["sent"] == 10, "ten messages sent")
    status = gateway.status
    assert status["ready"] is True
    assert status["mqtt"][0]["link"] == status["rocketmq"]["link"] == "up"
    assert status["uplink"]["in_flight"] == 0
    metrics = gateway.text("/metrics")
    assert "messaging_client_sent_messages_total{" in metrics
    sent = [line for line in metrics.splitlines() if line.startswith("messaging_client_sent_messages_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in sent) == 10
