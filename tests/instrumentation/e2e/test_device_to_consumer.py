"""A plain device, the gateway and plain consumers: one trace each, the right counts, no word of it in the programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spanbridge.demo.otlp import OtlpReceiver, Span

from .conftest import Run, counted, harness, of

pytestmark = pytest.mark.brokers

READINGS = [f'{{"reading": {number}}}' for number in range(3)]
CONFIG = """
[[mqtt]]
name = "broker"
url = "mqtt://{mqtt.host}:{mqtt.port}"
client_id = "{client_id}"

[rocketmq]
endpoints = "{endpoints}"

[[routes]]
source = "broker"
filter = "{prefix}/{{device}}/state"
topic = "{topic}"
{group}
"""


@pytest.fixture
def bridge(devstack: Any, receiver: OtlpReceiver, tmp_path: Path) -> Iterator[Any]:
    """Runs a gateway whose device is ``<prefix>/d1/state``; returns the gateway and that MQTT topic."""
    made: list[Any] = []

    def bridge(topic: str, *, fifo: bool = False) -> tuple[Any, str]:
        prefix = devstack.unique("zero")
        config = CONFIG.format(
            mqtt=devstack.mqtt_v5,
            client_id=devstack.unique("gateway"),
            endpoints=devstack.rocketmq.endpoints,
            prefix=prefix,
            topic=topic,
            group='message_group = "{device}"' if fifo else "",
        )
        exporting = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_SERVICE_NAME": "gateway"}
        made.append(harness().Gateway(tmp_path, config, {**receiver.environment("http/protobuf"), **exporting}))
        made[-1].start()
        return made[-1], f"{prefix}/d1/state"

    yield bridge
    for gateway in made:
        gateway.end()


def assert_one_trace_each(receiver: OtlpReceiver, *consumers: str) -> None:
    """Device → gateway (process, send) → each consumer, for three messages."""
    sends = of(receiver, "device", "send")
    assert len({span.trace_id for span in sends}) == 3
    taken = children(sends, of(receiver, "gateway", "process"))
    forwarded = children(taken, [span for span in of(receiver, "gateway", "send") if span.kind == "PRODUCER"])
    for consumer in consumers:
        processed = children(forwarded, of(receiver, consumer, "process"))
        assert {span.trace_id for span in processed} == {span.trace_id for span in sends}


def children(parents: list[Span], spans: list[Span]) -> list[Span]:
    """One child of each parent, and no other."""
    assert sorted(span.parent_id for span in spans) == sorted(span.span_id for span in parents)
    return spans


def test_a_device_and_three_kinds_of_consumers(run: Run, receiver: OtlpReceiver, devstack: Any, bridge: Any) -> None:
    endpoints, topic = devstack.rocketmq.endpoints, devstack.topic("NORMAL", queues=1)
    gateway, device_topic = bridge(topic)
    push = run("consumer.py", endpoints, devstack.group(), topic, service="push")
    poll = run("consumer_poll.py", endpoints, devstack.group(), topic, "3", service="poll")
    batch = run("consumer_batch.py", endpoints, devstack.group(), topic, "3", service="batch")
    for consumer in (push, poll, batch):
        consumer.wait_lines("ready")
    mqtt = devstack.mqtt_v5
    run("device.py", mqtt.host, str(mqtt.port), device_topic, service="device").finish()
    push.wait_lines(*READINGS)
    push.stop()
    poll.finish()
    batch.finish()
    assert gateway.stop() == 0

    assert_one_trace_each(receiver, "push", "poll")
    forwarded = [span.span_id for span in of(receiver, "gateway", "send") if span.kind == "PRODUCER"]
    for operation in ("receive", "process"):
        spans = [span for span in of(receiver, "batch", operation) if span.status != "ERROR"]
        assert sorted(link.span_id for span in spans for link in span.links) == sorted(forwarded)
    assert counted(receiver, "device", "messaging.client.sent.messages", messaging_system="mqtt") == 3
    assert counted(receiver, "device", "messaging.client.operation.duration", messaging_system="mqtt") == 3
    for service in ("push", "poll", "batch"):
        assert counted(receiver, service, "messaging.client.consumed.messages", messaging_system="rocketmq") == 3
    for service in ("push", "poll"):
        assert counted(receiver, service, "messaging.process.duration", messaging_system="rocketmq") == 3


def test_a_device_whose_messages_keep_their_order(run: Run, receiver: OtlpReceiver, devstack: Any, bridge: Any) -> None:
    topic = devstack.topic("FIFO", queues=1)
    gateway, device_topic = bridge(topic, fifo=True)
    push = run("consumer.py", devstack.rocketmq.endpoints, devstack.group(fifo=True), topic, service="push")
    push.wait_lines("ready")
    mqtt = devstack.mqtt_v5
    run("device.py", mqtt.host, str(mqtt.port), device_topic, service="device").finish()
    push.wait_lines(*READINGS)
    push.stop()
    assert gateway.stop() == 0
    assert_one_trace_each(receiver, "push")
    assert [line for line in push.lines if line != "ready"] == READINGS
    groups = {span.attributes["messaging.rocketmq.message.group"] for span in of(receiver, "push", "process")}
    assert groups == {"d1"}
