"""Polling: one ``receive`` span after the fact, and the user's own processing in each message's trace."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import get_current_span
from rocketmq import ClientConfiguration, LiteSimpleConsumer, Message, Producer
from rocketmq.grpc_protocol import DigestType, Encoding, definition_pb2
from rocketmq.v5.exception import IllegalArgumentException, IllegalStateException
from rocketmq.v5.util import Misc

from spanbridge_instrumentation import process

from .conftest import Recorded, eventually, kind_of, linked, message, parent_of, polled, receive

pytestmark = pytest.mark.brokers

DEVICE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def received(message_id: str = "1", trace_context: str = "", **properties: str) -> Message:
    """A message as it comes from the broker."""
    raw = definition_pb2.Message(body=b"body", user_properties=properties)
    raw.topic.name = "T"
    system = raw.system_properties
    system.message_id, system.trace_context, system.delivery_attempt = message_id, trace_context, 1
    system.body_encoding = Encoding.IDENTITY
    system.body_digest.type, system.body_digest.checksum = DigestType.CRC32, Misc.crc32_checksum(b"body")
    return Message().fromProtobuf(raw)


def test_one_receive_span_with_a_link_to_each_message(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    sent = [producer.send(message(topic)).message_id for _ in range(3)]
    with instrumented.tracer.start_as_current_span("loop") as loop:
        before, messages, after = time.time_ns(), receive(consumer, 3), time.time_ns()
    spans = instrumented.spans("receive")
    for span in spans:
        assert (span.name, kind_of(span)) == (f"receive {topic}", "CLIENT")
        assert parent_of(span) == loop.get_span_context().span_id
        assert before <= (span.start_time or 0) < (span.end_time or 0) <= after
        assert span.attributes is not None
        assert span.attributes["messaging.batch.message_count"] == len(span.links)
        assert span.attributes["messaging.consumer.group.name"] == consumer.consumer_group
    links = [link for span in spans for link in span.links]
    assert {link.context.span_id for link in links} == {span.context.span_id for span in instrumented.spans("send")}
    attributes = [link.attributes for link in links if link.attributes is not None]
    assert sorted(str(each["messaging.message.id"]) for each in attributes) == sorted(sent)
    assert {each["messaging.rocketmq.message.delivery_attempt"] for each in attributes} == {1}
    assert len(messages) == 3
    assert instrumented.total("messaging.client.consumed.messages", messaging_operation_name="receive") == 3
    durations = instrumented.total("messaging.client.operation.duration", messaging_operation_name="receive")
    assert durations == len(spans)


def test_polled_messages_are_in_flight_until_they_are_acknowledged(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    for _ in range(2):
        producer.send(message(topic))
    first, second = receive(consumer, 2)
    labels = {"messaging_destination_name": topic, "messaging_consumer_group_name": consumer.consumer_group}
    assert instrumented.total("spanbridge.consumer.in_flight", **labels) == 2
    with process(first):
        assert instrumented.total("spanbridge.consumer.in_flight", **labels) == 2
        consumer.ack(first)
    assert instrumented.total("spanbridge.consumer.in_flight", **labels) == 1
    consumer.change_invisible_duration(second, 30)
    assert instrumented.total("spanbridge.consumer.in_flight", **labels) == 1
    consumer.ack(second)
    assert instrumented.total("spanbridge.consumer.in_flight", **labels) == 0
    assert instrumented.total("spanbridge.delivery.delay", **labels) == 1


def test_an_empty_poll_makes_no_span(instrumented: Recorded, devstack: Any, poll: Any) -> None:
    consumer = poll(devstack.topic("NORMAL", queues=1), warm=True, seconds=1)
    assert polled(consumer) == []
    assert instrumented.spans() == []
    assert instrumented.total("messaging.client.operation.duration", messaging_operation_name="receive") == 1
    assert instrumented.total("messaging.client.consumed.messages") == 0


def test_a_poll_that_fails(instrumented: Recorded, devstack: Any, poll: Any) -> None:
    consumer = poll(devstack.topic("NORMAL", queues=1))
    with pytest.raises(IllegalArgumentException):
        consumer.receive(0, 15)
    with pytest.raises(IllegalArgumentException):
        consumer.receive_async(0, 15)
    failure = "rocketmq.v5.exception.client_exception.IllegalArgumentException"
    for span in instrumented.wait("receive", 2):
        assert span.status.status_code.name == "ERROR"
        assert span.attributes is not None
        assert span.attributes["error.type"] == failure
    assert instrumented.total("messaging.client.operation.duration", error_type=failure) == 2


def test_lite_consumers(instrumented: Recorded, configuration: ClientConfiguration) -> None:
    consumer = LiteSimpleConsumer("some-topic", configuration, "some-group")
    with pytest.raises(IllegalStateException):
        consumer.receive(32, 15)
    span = instrumented.only("receive")
    assert (span.name, span.status.status_code.name) == ("receive some-topic", "ERROR")
    assert span.attributes is not None
    assert span.attributes["messaging.consumer.group.name"] == "some-group"


def test_receive_async(producer: Producer, instrumented: Recorded, devstack: Any, poll: Any) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    current: list[Any] = []
    called = threading.Event()
    with instrumented.tracer.start_as_current_span("around") as around:
        future = consumer.receive_async(32, 30)
        future.add_done_callback(lambda _: (current.append(get_current_span().get_span_context()), called.set()))
    producer.send(message(topic))
    (found,) = future.result(30)
    assert called.wait(30)
    assert current == [around.get_span_context()]
    (span,) = instrumented.wait("receive")
    assert parent_of(span) == around.get_span_context().span_id

    async def handle() -> None:  # the client's ack_async wants a loop in the calling thread
        async with process(found):
            consumer.ack_async(found)

    asyncio.run(handle())
    assert instrumented.only("process").context.trace_id == instrumented.only("send").context.trace_id
    assert parent_of(instrumented.only("ack")) == instrumented.only("process").context.span_id


def test_processing_message_by_message(producer: Producer, instrumented: Recorded, devstack: Any, poll: Any) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    for number in range(2):
        producer.send(message(topic, str(number).encode(), properties={"baggage": f"n={number}"}))
    sends = instrumented.spans("send")
    for found in receive(consumer, 2):
        with process(found):
            consumer.ack(found)
    processes, acks = instrumented.spans("process"), instrumented.spans("ack")
    receives = {span.context.span_id for span in instrumented.spans("receive")}
    assert set().union(*map(linked, processes)) - set(map(parent_of, processes)) == receives
    assert sorted(map(str, map(parent_of, processes))) == sorted(str(span.context.span_id) for span in sends)
    for span, ack in zip(processes, acks, strict=True):
        assert (span.name, kind_of(span)) == (f"process {topic}", "CONSUMER")
        assert linked(ack) == {parent_of(span)}
        assert len(linked(span)) == 2
        assert parent_of(span) in linked(span)
        assert (ack.name, kind_of(ack), parent_of(ack)) == (f"ack {topic}", "CLIENT", span.context.span_id)
        assert ack.attributes is not None
        assert ack.attributes["messaging.operation.type"] == "settle"
    group = {"messaging_consumer_group_name": consumer.consumer_group}
    assert instrumented.total("messaging.process.duration", **group) == 2
    assert instrumented.total("messaging.client.operation.duration", messaging_operation_name="ack") == 2
    assert instrumented.total("messaging.client.consumed.messages", messaging_operation_name="process") == 0


def test_an_answer_sent_while_processing_is_a_child_of_it(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic, answers = devstack.topic("NORMAL", queues=1), devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    producer.send(message(topic, b"ping"))
    (found,) = receive(consumer, 1)
    with process(found):
        producer.send(message(answers, b"pong"))
        consumer.ack(found)
    ask, answer = instrumented.wait("send", 2)
    processing = instrumented.only("process")
    assert (ask.name, answer.name) == (f"send {topic}", f"send {answers}")
    assert parent_of(processing) == ask.context.span_id
    assert parent_of(answer) == processing.context.span_id


def test_processing_a_batch(instrumented: Recorded) -> None:
    other = DEVICE.replace("b7ad6b7169203331", "00f067aa0ba902b7")
    batch = [received("1", traceparent=DEVICE), received("2", traceparent=other), received("3")]
    with instrumented.tracer.start_as_current_span("around") as around, process(batch):
        assert baggage.get_all() == {}
    span = instrumented.only("process")
    assert parent_of(span) == around.get_span_context().span_id
    assert linked(span) == {0xB7AD6B7169203331, 0x00F067AA0BA902B7}
    assert [dict(link.attributes or {})["messaging.message.id"] for link in span.links] == ["1", "2"]
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in span.attributes


def test_what_the_block_raises(instrumented: Recorded) -> None:
    with pytest.raises(KeyError), process(received(traceparent=DEVICE)):
        raise KeyError("k")
    span = instrumented.only("process")
    assert span.attributes is not None
    assert (span.status.status_code.name, span.attributes["error.type"]) == ("ERROR", "KeyError")
    assert instrumented.total("messaging.process.duration", error_type="KeyError") == 1


def test_an_ack_outside_of_processing_is_in_the_messages_trace(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    producer.send(message(topic))
    (found,) = receive(consumer)
    consumer.ack(found)
    assert parent_of(instrumented.only("ack")) == instrumented.only("send").context.span_id
    with pytest.raises(Exception, match=r"."):
        consumer.ack(received())
    assert instrumented.spans("ack")[-1].status.status_code.name == "ERROR"


def test_redelivery_after_a_changed_duration(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    producer.send(message(topic))
    (first,) = receive(consumer)
    with process(first):
        consumer.change_invisible_duration(first, 1)
    (again,) = receive(consumer)
    with process(again):
        consumer.ack(again)
    change = instrumented.only("change_invisible_duration")
    assert (change.name, kind_of(change)) == (f"change_invisible_duration {topic}", "CLIENT")
    assert change.attributes is not None
    assert change.attributes["messaging.operation.type"] == "settle"
    assert change.attributes["messaging.rocketmq.message.invisible_duration"] == 1
    attempts = [dict(span.attributes or {}) for span in instrumented.spans("process")]
    assert [each["messaging.rocketmq.message.delivery_attempt"] for each in attempts] == [1, 2]
    assert {parent_of(span) for span in instrumented.spans("process")} == {instrumented.only("send").context.span_id}
    assert instrumented.total("messaging.client.consumed.messages") == 2


def test_the_system_property_carries_a_context_too(instrumented: Recorded) -> None:
    with process(received(trace_context=DEVICE)):
        pass
    with process(received(trace_context=DEVICE, traceparent=DEVICE.replace("b7ad6b7169203331", "00f067aa0ba902b7"))):
        pass
    assert [parent_of(span) for span in instrumented.spans("process")] == [0xB7AD6B7169203331, 0x00F067AA0BA902B7]


@pytest.mark.parametrize(
    "broken", ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", DEVICE + "\n", DEVICE + "0", "ff" + DEVICE[2:], "\0", "é"]
)
def test_malformed_contexts(instrumented: Recorded, broken: str) -> None:
    with process(received(traceparent=broken)):
        pass
    span = instrumented.only("process")
    assert parent_of(span) is None
    assert span.links == ()
    assert span.attributes is not None
    assert ("spanbridge.context.problem" in span.attributes) is bool(broken)


def test_suppressed(producer: Producer, instrumented: Recorded, devstack: Any, poll: Any) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    consumer = poll(topic, warm=True)
    with suppress_instrumentation():
        producer.send(message(topic))
        (found,) = receive(consumer)
        with process(found) as span:
            consumer.ack(found)
    assert not span.get_span_context().is_valid
    assert instrumented.spans() == []
    assert instrumented.total("messaging.client.operation.duration") == 0


def test_messages_are_not_kept(instrumented: Recorded) -> None:
    from spanbridge_instrumentation.rocketmq.carriers import TRACE_CONTEXTS

    before = len(TRACE_CONTEXTS)
    kept = [received(trace_context=DEVICE) for _ in range(10)]
    assert len(TRACE_CONTEXTS) == before + 10
    kept.clear()
    eventually(lambda: len(TRACE_CONTEXTS) == before)
