"""Push consumers: a ``process`` span around the listener, whatever it is and whatever it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import get_current_span
from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    FilterExpression,
    LitePushConsumer,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
)

from spanbridge_instrumentation import process
from spanbridge_instrumentation.rocketmq import RocketMQInstrumentor
from spanbridge_instrumentation.rocketmq.listening import Listener

from .conftest import Collecting, Recorded, eventually, kind_of, linked, message, parent_of

pytestmark = pytest.mark.brokers

DEVICE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARENT = 0xB7AD6B7169203331


def hearing(consumer: PushConsumer) -> Any:
    """What the client calls: its listener, with ours before it."""
    (listener,) = [value for value in vars(consumer).values() if isinstance(value, MessageListener | Duck)]
    return listener


class Duck:
    """The client asks for no base class."""

    def consume(self, message: Message) -> ConsumeResult:
        return ConsumeResult.SUCCESS


class Static(MessageListener):  # type: ignore[misc]
    @staticmethod
    def consume(message: Message) -> ConsumeResult:
        return ConsumeResult.SUCCESS


Make = Callable[..., PushConsumer]


@pytest.fixture
def make(configuration: ClientConfiguration) -> Make:
    """Makes consumers that are never started: what the client would call, the test calls."""

    def make(listener: Any, kind: Any = PushConsumer) -> PushConsumer:
        return kind(configuration, "some-group", listener, {"T": FilterExpression()})

    return make


def test_redelivery_until_success(producer: Producer, instrumented: Recorded, devstack: Any, push: Any) -> None:
    topic = devstack.topic("NORMAL", queues=1)

    def handle(received: Message) -> Any:
        current.append(get_current_span().get_span_context().span_id)
        if received.body == b"raises" and received.delivery_attempt == 1:
            raise ValueError("no")
        if received.body == b"fails" and received.delivery_attempt == 1:
            return ConsumeResult.FAILURE
        return ConsumeResult.SUCCESS

    current: list[int] = []
    consumer = push(Collecting(handle), topic)
    for body in (b"works", b"fails", b"raises"):
        producer.send(message(topic, body))
    sends = {span.context.span_id for span in instrumented.spans("send")}
    spans = instrumented.wait("process", 5)
    assert {(span.name, kind_of(span)) for span in spans} == {(f"process {topic}", "CONSUMER")}
    assert {parent_of(span) for span in spans} == sends
    assert all(linked(span) == {parent_of(span)} for span in spans)
    assert sorted(current) == sorted(span.context.span_id for span in spans)
    attributes = [dict(span.attributes or {}) for span in spans]
    ends = sorted(
        (each["messaging.rocketmq.message.delivery_attempt"], str(each.get("error.type", ""))) for each in attributes
    )
    assert ends == [(1, ""), (1, "FAILURE"), (1, "ValueError"), (2, ""), (2, "")]
    assert {each["messaging.consumer.group.name"] for each in attributes} == {consumer.consumer_group}
    assert {each["messaging.client.id"] for each in attributes} == {consumer.client_id}
    assert instrumented.total("messaging.client.consumed.messages", messaging_destination_name=topic) == 5
    assert instrumented.total("messaging.process.duration", messaging_destination_name=topic) == 5
    assert instrumented.total("messaging.process.duration", error_type="FAILURE") == 1
    assert instrumented.total("messaging.process.duration", error_type="ValueError") == 1
    assert instrumented.spans("receive") == instrumented.spans("ack") == []


def test_a_listener_that_hangs_shows_while_it_hangs(
    producer: Producer, instrumented: Recorded, devstack: Any, push: Any
) -> None:
    topic, go_on, reached = devstack.topic("NORMAL", queues=1), threading.Event(), threading.Event()

    def handle(_: Message) -> Any:
        reached.set()
        go_on.wait(60)
        return ConsumeResult.SUCCESS

    consumer = push(Collecting(handle), topic)
    try:
        producer.send(message(topic))
        assert reached.wait(60)
        labels = {
            "messaging_destination_name": topic,
            "messaging_consumer_group_name": consumer.consumer_group,
        }
        assert instrumented.total("spanbridge.consumer.in_flight", **labels) == 1
        before = instrumented.total("spanbridge.consumer.in_flight.age", **labels)
        assert instrumented.total("spanbridge.consumer.in_flight.age", **labels) > before > 0
        delayed = instrumented.total("spanbridge.delivery.delay", spanbridge_delivery_delay_since="born", **labels)
        assert delayed == 1
    finally:
        go_on.set()
    instrumented.wait("process")
    eventually(lambda: instrumented.total("spanbridge.consumer.in_flight", **labels) == 0)


def test_fifo(producer: Producer, instrumented: Recorded, devstack: Any, push: Any) -> None:
    topic = devstack.topic("FIFO", queues=1)
    listener = Collecting()
    push(listener, topic, fifo=True)
    for number in range(4):
        producer.send(message(topic, str(number).encode(), message_group="device-7"))
    spans = instrumented.wait("process", 4)
    assert [parent_of(span) for span in spans] == [span.context.span_id for span in instrumented.spans("send")]
    assert [each.body for each in listener.seen] == [b"0", b"1", b"2", b"3"]
    for span in spans:
        assert span.attributes is not None
        assert span.attributes["messaging.rocketmq.message.group"] == "device-7"
        assert span.attributes["messaging.rocketmq.message.type"] == "fifo"


@pytest.mark.parametrize(
    "listener", [Collecting(), Static, Static(), Duck()], ids=["object", "class", "static", "duck"]
)
def test_listeners_of_all_kinds(instrumented: Recorded, make: Make, listener: Any) -> None:
    result = hearing(make(listener)).consume(message("T", properties={"traceparent": DEVICE}))
    assert result is ConsumeResult.SUCCESS
    span = instrumented.only("process")
    assert (parent_of(span), span.status.status_code.name) == (PARENT, "UNSET")


def test_a_forgotten_result_is_a_failure(instrumented: Recorded, make: Make) -> None:
    assert hearing(make(Collecting(lambda _: None))).consume(message("T")) is None
    span = instrumented.only("process")
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "the listener returned None")


def test_a_listener_keeps_its_own_attributes(instrumented: Recorded, make: Make) -> None:
    listener = Collecting()
    assert hearing(make(listener)).seen is listener.seen


def test_process_inside_a_listener_makes_no_second_span(instrumented: Recorded, make: Make) -> None:
    def handle(received: Message) -> ConsumeResult:
        with process(received) as span:
            assert span is get_current_span()
        return ConsumeResult.SUCCESS

    hearing(make(Collecting(handle))).consume(message("T"))
    assert len(instrumented.spans("process")) == 1


def test_suppressed(instrumented: Recorded, make: Make) -> None:
    with suppress_instrumentation():
        assert hearing(make(Duck())).consume(message("T")) is ConsumeResult.SUCCESS
    assert instrumented.spans() == []
    assert instrumented.total("messaging.client.consumed.messages") == 0


def test_lite_consumers(instrumented: Recorded, configuration: ClientConfiguration) -> None:
    consumer = LitePushConsumer(configuration, "some-group", "T", message_listener=Collecting())
    lite = message("T", lite_topic="device-7")
    hearing(consumer).consume(lite)
    span = instrumented.only("process")
    assert span.name == "process T"
    assert span.attributes is not None
    assert span.attributes["messaging.rocketmq.message.lite_topic"] == "device-7"
    assert instrumented.total("messaging.process.duration", messaging_rocketmq_message_lite_topic="device-7") == 0


def test_uninstrument_and_back(instrument: Callable[..., RocketMQInstrumentor], recorded: Recorded, make: Make) -> None:
    instrumentor = instrument()
    heard = hearing(make(Collecting()))
    instrumentor.uninstrument()
    assert heard.consume(message("T")) is ConsumeResult.SUCCESS
    assert recorded.spans() == []
    instrument()
    heard.consume(message("T"))
    assert len(recorded.spans("process")) == 1


def test_uninstrument_while_a_listener_runs(
    instrument: Callable[..., RocketMQInstrumentor], recorded: Recorded, make: Make
) -> None:
    instrumentor = instrument()

    def handle(received: Message) -> ConsumeResult:
        instrumentor.uninstrument()
        return ConsumeResult.SUCCESS

    assert hearing(make(Collecting(handle))).consume(message("T")) is ConsumeResult.SUCCESS
    assert recorded.only("process").end_time is not None
    assert not get_current_span().get_span_context().is_valid


def test_one_consumer_that_is_there_already(recorded: Recorded, instrument: Any, make: Make) -> None:
    first, second = make(Collecting()), make(Collecting())
    instrumentor = RocketMQInstrumentor()
    instrumentor.instrument_client(first, **recorded.providers)
    instrumentor.instrument_client(first, **recorded.providers)
    hearing(first).consume(message("T"))
    hearing(second).consume(message("T"))
    assert len(recorded.spans("process")) == 1
    assert not isinstance(hearing(first).listener, Listener)


def test_an_instrumentation_that_breaks_fails_no_message(
    instrument: Callable[..., RocketMQInstrumentor], recorded: Recorded, make: Make
) -> None:
    instrument(consume_hook=lambda span, received: span.no_such_method())
    heard = hearing(make(Collecting()))
    assert heard.consume(message("T")) is ConsumeResult.SUCCESS
    assert heard.consume(object()) is ConsumeResult.SUCCESS
    assert len(recorded.spans("process")) == 1
