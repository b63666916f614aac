"""Plain RocketMQ programs under ``opentelemetry-instrument``, judged by what their processes exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spanbridge.demo.otlp import OtlpReceiver

from .conftest import Run, counted, of

pytestmark = pytest.mark.brokers

ORDERS = [f'{{"order": {number}}}' for number in range(3)]

TROUBLE = """
import sys
from rocketmq import *

endpoints, group, topic = sys.argv[1:4]
configuration = ClientConfiguration(endpoints, Credentials())

def say(line):
    print(line + "\\n", end="", flush=True)  # one write: other threads print too

class Listener(MessageListener):
    def consume(self, message):
        say(f"{message.body.decode()} {message.delivery_attempt}")
        if message.delivery_attempt > 1:
            return ConsumeResult.SUCCESS
        if message.body == b"raises":
            raise ValueError("no")
        return ConsumeResult.FAILURE

consumer = PushConsumer(configuration, group, Listener(), {topic: FilterExpression()})
producer = Producer(configuration, (topic,))
consumer.startup()
producer.startup()
for body in ("raises", "fails"):
    message = Message()
    message.topic, message.body = topic, body.encode()
    producer.send(message)
message.message_group = "a group, in a topic without"
try:
    producer.send(message)
except Exception as error:
    say(type(error).__name__)
sys.stdin.readline()
for client in (producer, consumer):
    client.shutdown()
"""


def test_a_producer_and_three_kinds_of_consumers(run: Run, receiver: OtlpReceiver, devstack: Any) -> None:
    endpoints, topic = devstack.rocketmq.endpoints, devstack.topic("NORMAL", queues=1)
    push = run("consumer.py", endpoints, devstack.group(), topic, service="push")
    poll = run("consumer_poll.py", endpoints, devstack.group(), topic, "3", service="poll")
    batch = run("consumer_batch.py", endpoints, devstack.group(), topic, "3", service="batch")
    for consumer in (push, poll, batch):
        consumer.wait_lines("ready")
    run("producer.py", endpoints, topic, service="producer").finish()
    push.wait_lines(*ORDERS)
    push.stop()
    poll.finish()
    batch.finish()

    sends = of(receiver, "producer", "send")
    assert [(span.name, span.kind, span.status, span.scope) for span in sends] == [
        (f"send {topic}", "PRODUCER", "UNSET", "spanbridge_instrumentation.rocketmq")
    ] * 3
    ids = [span.span_id for span in sends]
    for service in ("push", "poll"):
        processes = of(receiver, service, "process")
        assert sorted(span.parent_id for span in processes) == sorted(ids)
        assert {span.trace_id for span in processes} == {span.trace_id for span in sends}
    processes = {span.span_id for span in of(receiver, "poll", "process")}
    assert {span.parent_id for span in of(receiver, "poll", "ack")} == processes
    polls = {span.span_id for span in of(receiver, "batch", "receive") if span.status != "ERROR"}
    for operation in ("receive", "process"):
        spans = [span for span in of(receiver, "batch", operation) if span.status != "ERROR"]
        links = [link.span_id for span in spans for link in span.links]
        assert sorted(link for link in links if link not in polls) == sorted(ids)
        assert (polls if operation == "process" else set()) == polls & set(links)
        assert {span.parent_id for span in spans} == {""}
        assert sum(span.attributes["messaging.batch.message_count"] for span in spans) == 3
    batches = {span.span_id for span in of(receiver, "batch", "process")}
    assert {span.parent_id for span in of(receiver, "batch", "ack")} == batches
    assert counted(receiver, "producer", "messaging.client.sent.messages") == 3
    for service in ("push", "poll", "batch"):
        assert counted(receiver, service, "messaging.client.consumed.messages") == 3
    assert counted(receiver, "push", "messaging.process.duration") == 3
    assert counted(receiver, "batch", "messaging.process.duration") == len(batches)
    durations = receiver.metric("messaging.process.duration")
    assert durations is not None
    assert (durations.unit, durations.points[0].bounds[0], durations.points[0].bounds[-1]) == ("s", 0.005, 10.0)


def test_a_plain_loop_over_polled_messages(run: Run, receiver: OtlpReceiver, devstack: Any) -> None:
    endpoints = devstack.rocketmq.endpoints
    topic, answers = devstack.topic("NORMAL", queues=1), devstack.topic("NORMAL", queues=1)
    program = run("plain_poll.py", endpoints, devstack.group(), topic, answers, "3", service="poll")
    program.wait_lines("ready")
    run("producer.py", endpoints, topic, service="producer").finish()
    program.finish()
    processes = of(receiver, "poll", "process")
    assert {span.parent_id for span in processes} == {span.span_id for span in of(receiver, "producer", "send")}
    assert {span.name for span in processes} == {f"process {topic}"}
    ids = [span.span_id for span in processes]
    for operation, kind, name in (("send", "PRODUCER", answers), ("ack", "CLIENT", topic)):
        spans = of(receiver, "poll", operation)
        assert [(span.parent_id, span.kind, span.name) for span in spans] == [
            (each, kind, f"{operation} {name}") for each in ids
        ]
    polls = {span.span_id for span in of(receiver, "poll", "receive") if span.status != "ERROR"}
    assert {link.span_id for span in processes for link in span.links} >= polls
    assert counted(receiver, "poll", "messaging.process.duration") == 3


def test_a_program_in_trouble(run: Run, receiver: OtlpReceiver, devstack: Any, tmp_path: Path) -> None:
    script = tmp_path / "trouble.py"
    script.write_text(TROUBLE)
    topic = devstack.topic("NORMAL", queues=1)
    program = run(script, devstack.rocketmq.endpoints, devstack.group(), topic, service="trouble")
    program.wait_lines("raises 2", "fails 2", "IllegalArgumentException")
    program.end_input()
    program.finish()
    *good, bad = of(receiver, "trouble", "send")
    processes = of(receiver, "trouble", "process")
    failure = "rocketmq.v5.exception.client_exception.IllegalArgumentException"
    assert (bad.status, bad.attributes["error.type"]) == ("ERROR", failure)
    assert sorted(span.parent_id for span in processes) == sorted(2 * [span.span_id for span in good])
    ends = sorted(
        (span.attributes["messaging.rocketmq.message.delivery_attempt"], span.attributes.get("error.type", ""))
        for span in processes
    )
    assert ends == [(1, "FAILURE"), (1, "ValueError"), (2, ""), (2, "")]
    assert counted(receiver, "trouble", "messaging.client.sent.messages") == 3
    assert counted(receiver, "trouble", "messaging.client.sent.messages", error_type=failure) == 1
    assert counted(receiver, "trouble", "messaging.process.duration") == 4
    assert counted(receiver, "trouble", "messaging.client.consumed.messages") == 4
    for error in ("FAILURE", "ValueError"):
        assert counted(receiver, "trouble", "messaging.process.duration", error_type=error) == 1
    sending = {"messaging_operation_name": "send"}
    assert counted(receiver, "trouble", "messaging.client.operation.duration", **sending) == 3
    assert counted(receiver, "trouble", "messaging.client.operation.duration", **sending, error_type=failure) == 1
    scopes = {metric.scope for metric in receiver.metrics}
    assert scopes == {"spanbridge_instrumentation.rocketmq"}
