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

FAILING = """
import sys
from rocketmq import *

class Listener(MessageListener):
    failed = set()

    def consume(self, message):
        number = message.body[-2:-1]
        if number in b"01" and number not in self.failed:
            self.failed.add(number)
            if number == b"1":
                raise ValueError("no")
            return ConsumeResult.FAILURE
        print(message.body.decode() + "\\n", end="", flush=True)  # one write: other threads print too
        return ConsumeResult.SUCCESS

endpoints, group, topic = sys.argv[1:4]
configuration = ClientConfiguration(endpoints, Credentials())
consumer = PushConsumer(configuration, group, Listener(), {topic: FilterExpression()})
consumer.startup()
print("ready", flush=True)
sys.stdin.readline()
consumer.shutdown()
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
    polls = {span.span_id for span in of(receiver, "batch", "receive") if span.status != "ERROR"}
    for operation in ("receive", "process"):
        spans = [span for span in of(receiver, "batch", operation) if span.status != "ERROR"]
        links = [link.span_id for span in spans for link in span.links]
        assert sorted(link for link in links if link not in polls) == sorted(forwarded)
    assert counted(receiver, "device", "messaging.client.sent.messages", messaging_system="mqtt") == 3
    assert counted(receiver, "device", "messaging.client.operation.duration", messaging_system="mqtt") == 3
    for service in ("push", "poll", "batch"):
        assert counted(receiver, service, "messaging.client.consumed.messages", messaging_system="rocketmq") == 3
    for service in ("push", "poll"):
        assert counted(receiver, service, "messaging.process.duration", messaging_system="rocketmq") == 3


def assert_tries(receiver: OtlpReceiver) -> None:
    """What failed in order: each try is a span below the gateway's, with its error, and counted."""
    forwarded = [span for span in of(receiver, "gateway", "send") if span.kind == "PRODUCER"]
    by_id = {span.span_id: number for number, span in enumerate(forwarded)}
    tries = [(by_id[span.parent_id], span.attributes.get("error.type")) for span in of(receiver, "failing", "process")]
    assert tries == [(0, "FAILURE"), (0, None), (1, "ValueError"), (1, None), (2, None)]
    for metric in ("messaging.process.duration", "messaging.client.consumed.messages"):
        assert counted(receiver, "failing", metric) == 5
    for error in ("FAILURE", "ValueError"):
        assert counted(receiver, "failing", "messaging.process.duration", error_type=error) == 1


def test_a_device_whose_messages_keep_their_order(
    run: Run, receiver: OtlpReceiver, devstack: Any, bridge: Any, tmp_path: Path
) -> None:
    topic = devstack.topic("FIFO", queues=1)
    gateway, device_topic = bridge(topic, fifo=True)
    push = run("consumer.py", devstack.rocketmq.endpoints, devstack.group(fifo=True), topic, service="push")
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    failing = run(script, devstack.rocketmq.endpoints, devstack.group(fifo=True), topic, service="failing")
    poll = run("consumer_poll.py", devstack.rocketmq.endpoints, devstack.group(fifo=True), topic, "3", service="poll")
    for consumer in (push, failing, poll):
        consumer.wait_lines("ready")
    mqtt = devstack.mqtt_v5
    run("device.py", mqtt.host, str(mqtt.port), device_topic, service="device").finish()
    push.wait_lines(*READINGS)
    failing.wait_lines(*READINGS)
    push.stop()
    failing.end_input()
    failing.finish()
    poll.finish()
    assert gateway.stop() == 0
    assert_one_trace_each(receiver, "push", "poll")
    assert_tries(receiver)
    assert [line for line in push.lines if line != "ready"] == READINGS
    groups = {span.attributes["messaging.rocketmq.message.group"] for span in of(receiver, "push", "process")}
    assert groups == {"d1"}
