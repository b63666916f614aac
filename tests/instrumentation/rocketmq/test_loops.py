"""A polling loop as a developer writes it, over a consumer whose polls are answered here: no broker."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest
from opentelemetry.trace import get_current_span
from rocketmq import ClientConfiguration, Credentials, FilterExpression, Message, SimpleConsumer
from rocketmq.grpc_protocol import DigestType, Encoding, Permission, definition_pb2
from rocketmq.v5.model.topic_route import TopicRouteData
from rocketmq.v5.util import Misc

from spanbridge_instrumentation import process

from .conftest import Recorded, linked, parent_of

SENDERS = [0xB7AD6B7169203330 + number for number in range(3)]


def is_nothing_current() -> bool:
    return not get_current_span().get_span_context().is_valid


def stored(number: int, age: float) -> Message:
    """A message as it comes from the broker, which stored it so many seconds ago."""
    parent = f"00-0af7651916cd43dd8448eb211c80319c-{SENDERS[number]:016x}-01"
    raw = definition_pb2.Message(body=b"body", user_properties={"traceparent": parent})
    raw.topic.name = "T"
    system = raw.system_properties
    system.message_id, system.delivery_attempt = str(number), 1
    system.store_timestamp.FromMilliseconds(int((time.time() - age) * 1000))
    system.body_encoding = Encoding.IDENTITY
    system.body_digest.type, system.body_digest.checksum = DigestType.CRC32, Misc.crc32_checksum(b"body")
    return Message().fromProtobuf(raw)


class Consumer(SimpleConsumer):  # type: ignore[misc]
    """Started, with a route, and a poll that brings three messages after a while."""

    is_running = True
    waits = 0.0

    def __init__(self) -> None:
        configuration = ClientConfiguration("127.0.0.1:8081", Credentials())
        super().__init__(configuration, "group", {"T": FilterExpression()})
        self.age = 0.0

    def _retrieve_topic_route_data(self, _topic: str) -> TopicRouteData:
        queue = definition_pb2.MessageQueue(permission=Permission.READ_WRITE, accept_message_types=[1])
        queue.topic.name, queue.broker.name = "T", "broker"
        queue.broker.endpoints.addresses.add(host="127.0.0.1", port=8081)
        return TopicRouteData([queue])

    def _receive(self, *_: Any) -> list[Message]:
        time.sleep(self.waits)
        return [stored(number, self.age) for number in range(3)]

    def _ack(self, _message: Message) -> None:
        pass


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def loops(instrument: Any, recorded: Recorded) -> Recorded:
    instrument(loop_spans=True)
    return recorded


def test_each_message_has_its_span(loops: Recorded, consumer: Consumer) -> None:
    for message in consumer.receive(32, 15):
        with loops.tracer.start_as_current_span("work"):
            consumer.ack(message)
    assert is_nothing_current()
    processes, work = loops.spans("process"), loops.exporter.get_finished_spans()
    assert [span.name for span in processes] == ["process T"] * 3
    assert [parent_of(span) for span in processes] == SENDERS
    ids = [span.context.span_id for span in processes]
    assert [parent_of(span) for span in work if span.name == "work"] == ids
    (receive,) = loops.spans("receive")
    assert all(receive.context.span_id in linked(span) for span in processes)
    assert loops.total("messaging.process.duration") == 3
    assert loops.total("spanbridge.consumer.in_flight") == 0


def test_a_batch_that_is_looked_at_in_another_way_has_none(loops: Recorded, consumer: Consumer) -> None:
    messages = consumer.receive(32, 15)
    bodies = [message.body for message in messages]
    everything = [*messages, *sorted(messages, key=lambda each: each.message_id)]
    assert (len(bodies), len(everything), len(messages), messages[0].message_id) == (3, 6, 3, "0")
    assert isinstance(messages, list)
    assert messages == list(messages)
    for _number, _message in enumerate(messages):
        assert is_nothing_current()
    assert loops.spans("process") == []


def test_the_first_loop_is_the_one(loops: Recorded, consumer: Consumer) -> None:
    messages = consumer.receive(32, 15)
    for _ in messages:
        pass
    for message in messages:
        assert is_nothing_current()
        consumer.ack(message)
    assert len(loops.spans("process")) == 3


def test_a_loop_that_is_left(loops: Recorded, consumer: Consumer) -> None:
    for _ in consumer.receive(32, 15):
        break
    assert is_nothing_current()
    assert len(loops.spans("process")) == 1


def test_with_process_is_not_a_second_one(loops: Recorded, consumer: Consumer) -> None:
    for message in consumer.receive(32, 15):
        with process(message):
            consumer.ack(message)
    assert len(loops.spans("process")) == 3
    messages = consumer.receive(32, 15)
    with process(messages):
        for message in messages:
            consumer.ack(message)
    assert len(loops.spans("process")) == 4


def test_switched_off(instrument: Any, recorded: Recorded, consumer: Consumer) -> None:
    instrument(loop_spans=False)
    messages = consumer.receive(32, 15)
    assert type(messages) is list
    for _ in messages:
        assert is_nothing_current()
    assert recorded.spans("process") == []
    assert len(recorded.only("receive").links) == 3


def test_what_a_poll_brought_can_be_pickled_as_a_list(loops: Recorded, consumer: Consumer) -> None:
    messages = consumer.receive(32, 15)
    messages[:] = [1, 2]
    assert type(pickle.loads(pickle.dumps(messages))) is list
    assert loops.spans("process") == []


def test_a_receive_span_begins_when_there_was_something_to_receive(loops: Recorded, consumer: Consumer) -> None:
    consumer.waits = 0.5
    consumer.receive(32, 15)
    consumer.age = 3600.0
    consumer.receive(32, 15)
    waited, backlog = loops.spans("receive")
    assert waited.attributes is not None
    assert backlog.attributes is not None
    assert waited.start_time is not None
    assert backlog.start_time is not None
    assert 0.3 < float(str(waited.attributes["spanbridge.receive.waited"])) <= 0.5 + 60
    assert waited.start_time <= (waited.end_time or 0)
    assert "spanbridge.receive.waited" not in backlog.attributes
    assert (backlog.end_time or 0) - backlog.start_time >= 400_000_000
    assert loops.total("messaging.client.operation.duration", messaging_operation_name="receive") == 2
