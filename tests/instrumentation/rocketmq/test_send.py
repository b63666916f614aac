"""Sending: spans that last until the broker's answer, and contexts that leave the user's message alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Event
from typing import Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import get_current_span
from rocketmq import Message, Producer

from spanbridge_context.otel import SpanbridgePropagator
from spanbridge_instrumentation import process

from .conftest import Checker, Recorded, kind_of, linked, message, parent_of, receive

pytestmark = pytest.mark.brokers

DEVICE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def trace_parent(span: Any) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{int(span.context.trace_flags):02x}"


def test_a_send(producer: Producer, instrumented: Recorded, devstack: Any, poll: Any) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    sent = message(topic, b"body", tag="blue", keys="k1", properties={"user": "u"})
    with instrumented.tracer.start_as_current_span("around") as around:
        receipt = producer.send(sent)
    span = instrumented.only("send")
    host, port = devstack.rocketmq.endpoints.split(":")
    assert (span.name, kind_of(span), parent_of(span)) == (
        f"send {topic}",
        "PRODUCER",
        around.get_span_context().span_id,
    )
    assert span.attributes == {
        "messaging.system": "rocketmq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.client.id": producer.client_id,
        "messaging.message.id": receipt.message_id,
        "messaging.message.body.size": 4,
        "messaging.rocketmq.message.type": "normal",
        "messaging.rocketmq.message.tag": "blue",
        "messaging.rocketmq.message.keys": ("k1",),
        "server.address": host,
        "server.port": int(port),
    }
    assert sent.properties == {"user": "u"}
    (received,) = receive(poll(topic))
    assert received.properties == {"user": "u", "traceparent": trace_parent(span)}
    assert instrumented.total("messaging.client.sent.messages", messaging_destination_name=topic) == 1
    assert instrumented.total("messaging.client.operation.duration", messaging_operation_name="send") == 1


def test_a_message_sent_again_gets_a_context_of_its_own(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    again = message(topic)
    producer.send(again)
    producer.send(again)
    futures = [producer.send_async(again) for _ in range(20)]
    for future in futures:
        future.result(30)
    spans = instrumented.wait("send", 22)
    assert again.properties == {}
    received = [each.properties for each in receive(poll(topic), 22)]
    assert {tuple(properties) for properties in received} == {("traceparent",)}
    assert {properties["traceparent"] for properties in received} == {trace_parent(span) for span in spans}


def test_the_span_of_send_async_ends_with_the_future(
    producer: Producer, instrumented: Recorded, shared_topic: str
) -> None:
    seen: dict[str, Any] = {}
    called = Event()

    def callback(future: Future[Any]) -> None:
        seen["current"] = get_current_span().get_span_context()
        seen["ended"] = [span.name for span in instrumented.spans("send")]
        called.set()

    with instrumented.tracer.start_as_current_span("around") as around:
        future = producer.send_async(message(shared_topic))
        assert instrumented.spans("send") == [] or future.done()
        future.add_done_callback(fn=callback)
    receipt = future.result(30)
    assert called.wait(30)
    assert seen["current"] == around.get_span_context()
    assert seen["ended"] == [f"send {shared_topic}"]
    span = instrumented.only("send")
    assert span.attributes is not None
    assert span.attributes["messaging.message.id"] == receipt.message_id


def test_awaiting_a_send(producer: Producer, instrumented: Recorded, shared_topic: str) -> None:
    async def send(name: str) -> None:
        with instrumented.tracer.start_as_current_span(name) as around:
            await asyncio.wrap_future(producer.send_async(message(shared_topic)))
            assert get_current_span() is around

    async def both() -> None:
        await asyncio.gather(send("first"), send("second"))

    asyncio.run(both())
    tasks = {span.context.span_id for span in instrumented.spans() if span.name in {"first", "second"}}
    assert {parent_of(span) for span in instrumented.spans("send")} == tasks


def test_what_is_no_message_is_the_clients_affair(producer: Producer, instrumented: Recorded) -> None:
    with pytest.raises(TypeError):
        producer.send(Message())
    with pytest.raises(AttributeError):
        producer.send(None)
    assert [span.name for span in instrumented.spans()] == ["send"]


def test_a_context_that_the_user_set_is_kept_and_linked(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    producer.send(message(topic, properties={"traceparent": DEVICE}))
    span = instrumented.only("send")
    assert linked(span) == {0xB7AD6B7169203331}
    assert parent_of(span) == 0xB7AD6B7169203331
    assert kind_of(span) == "CLIENT"  # it is not the creation context
    assert instrumented.total("messaging.client.sent.messages") == 1
    (received,) = receive(poll(topic))
    assert received.properties == {"traceparent": DEVICE}


def test_a_context_of_the_same_trace_is_refined(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    with instrumented.tracer.start_as_current_span("around") as around:
        inbound = f"00-{around.get_span_context().trace_id:032x}-b7ad6b7169203331-01"
        forwarded = message(topic, properties={"traceparent": inbound, "tracestate": "old=1"})
        producer.send(forwarded)
    (received,) = receive(poll(topic))
    assert received.properties == {"traceparent": trace_parent(instrumented.only("send"))}
    assert forwarded.properties == {"traceparent": inbound, "tracestate": "old=1"}


def test_baggage_travels_as_far_as_there_is_room(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    token = context.attach(baggage.set_baggage("site", "north"))
    try:
        producer.send(message(topic, b"1"))
        producer.send(message(topic, b"2", properties={"big": "x" * 16_310}))
        producer.send(message(topic, b"3", properties={"bigger": "x" * 16_370}))
        producer.send(message(topic, b"4", properties={f"p{number}": "x" for number in range(127)}))
        producer.send(message(topic, b"5", properties={f"p{number}": "x" for number in range(128)}))
    finally:
        context.detach(token)
    received = {each.body: set(each.properties) & {"traceparent", "baggage"} for each in receive(poll(topic), 5)}
    assert received == {
        b"1": {"traceparent", "baggage"},
        b"2": {"traceparent"},
        b"3": set(),
        b"4": {"traceparent"},
        b"5": set(),
    }
    assert len(instrumented.spans("send")) == 5


def test_failing_sends(producer: Producer, instrumented: Recorded, devstack: Any, shared_topic: str) -> None:
    wrong = message(shared_topic, message_group="g")
    with pytest.raises(Exception, match="message type not match"):
        producer.send(wrong)
    with pytest.raises(Exception, match="message type not match"):
        producer.send_async(wrong)
    late = message(devstack.topic("DELAY"), delivery_timestamp=int(time.time()) + 10**9)
    with pytest.raises(Exception, match="delay"):
        producer.send(late)
    with pytest.raises(Exception, match="delay"):
        producer.send_async(late).result(30)
    spans = instrumented.wait("send", 4)
    module = "rocketmq.v5.exception.client_exception"
    types = [span.attributes["error.type"] for span in spans if span.attributes is not None]
    assert types == [f"{module}.IllegalArgumentException"] * 2 + [f"{module}.BadRequestException"] * 2
    assert {span.status.status_code.name for span in spans} == {"ERROR"}
    assert all(span.events[0].name == "exception" for span in spans)
    assert wrong.properties == late.properties == {}
    for metric in ("messaging.client.sent.messages", "messaging.client.operation.duration"):
        assert instrumented.total(metric, error_type=types[0]) == 2
        assert instrumented.total(metric, error_type=types[2]) == 2


def test_suppressed(producer: Producer, instrumented: Recorded, devstack: Any, poll: Any) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    with suppress_instrumentation():
        producer.send(message(topic))
        producer.send_async(message(topic)).result(30)
        received = receive(poll(topic), 2)
    assert [each.properties for each in received] == [{}, {}]
    assert instrumented.spans() == []
    assert instrumented.total("messaging.client.sent.messages") == 0


@pytest.mark.parametrize(
    ("kind", "attributes", "expected"),
    [
        ("FIFO", {"message_group": "device-7"}, {"type": "fifo", "group": "device-7"}),
        ("LITE", {"lite_topic": "device-7"}, {"type": "lite", "lite_topic": "device-7"}),
        ("DELAY", {"delivery_timestamp": 4_000_000_000}, {"type": "delay", "delivery_timestamp": 4_000_000_000_000}),
    ],
)
def test_message_types(
    producer: Producer,
    instrumented: Recorded,
    devstack: Any,
    kind: str,
    attributes: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    far = pytest.raises(Exception, match="delay") if kind == "DELAY" else contextlib.nullcontext()
    with far:  # it is too far in the future for this broker
        producer.send(message(devstack.topic(kind), **attributes))
    found = instrumented.only("send").attributes
    assert found is not None
    prefix = "messaging.rocketmq.message."
    assert {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)} == expected


def test_priority_messages(producer: Producer, instrumented: Recorded, devstack: Any, poll: Any) -> None:
    topic = devstack.topic("PRIORITY", queues=1)
    producer.send(message(topic, priority=3))
    (received,) = receive(poll(topic))
    with process(received):
        pass
    for operation in ("send", "process"):
        found = instrumented.only(operation).attributes
        assert found is not None
        assert found["messaging.rocketmq.message.type"] == "priority"
        assert found["messaging.rocketmq.message.priority"] == 3
    assert parent_of(instrumented.only("process")) == instrumented.only("send").context.span_id


def test_transactions(producer: Producer, instrumented: Recorded, devstack: Any) -> None:
    topic = devstack.topic("TRANSACTION")
    for resolve in ("commit", "rollback"):
        transaction = producer.begin_transaction()
        producer.send(message(topic), transaction)
        getattr(transaction, resolve)()
        half = instrumented.spans("send")[-1]
        span = instrumented.only(resolve)
        assert half.attributes is not None
        assert span.attributes is not None
        assert half.attributes["messaging.rocketmq.message.type"] == "transaction"
        assert (span.name, kind_of(span), linked(span)) == (f"{resolve} {topic}", "CLIENT", {half.context.span_id})
        assert span.attributes["messaging.message.id"] == half.attributes["messaging.message.id"]
        assert "messaging.operation.type" not in span.attributes
        assert instrumented.total("messaging.client.operation.duration", messaging_operation_name=resolve) == 1
    with pytest.raises(Exception, match="no message in transaction"):
        producer.begin_transaction().commit()
    assert len(instrumented.spans("commit")) == 1


def test_the_checker_runs_in_the_half_messages_context(configuration: Any, instrumented: Recorded) -> None:
    current: list[str] = []

    class Watching(Checker):
        def check(self, message: Message) -> Any:
            current.append(f"{get_current_span().get_span_context().span_id:016x}")
            return super().check(message)

    checker = Watching()
    producer = Producer(configuration, None, checker)
    (given,) = [value for value in vars(producer).values() if isinstance(value, type(checker).__mro__[2])]
    given.check(message("T", properties={"traceparent": DEVICE}))
    assert current == [DEVICE[36:52]]
    assert len(checker.asked) == 1
    assert not get_current_span().get_span_context().is_valid


def test_a_recall_that_the_broker_forbids(producer: Producer, instrumented: Recorded, devstack: Any) -> None:
    topic = devstack.topic("DELAY")
    receipt = producer.send(message(topic, delivery_timestamp=int(time.time()) + 60))
    with pytest.raises(Exception, match="forbidden"):
        producer.recall_message(topic, receipt.recall_handle)
    with pytest.raises(Exception, match="forbidden"):
        producer.recall_message_async(topic, receipt.recall_handle).result(30)
    spans = instrumented.wait("recall", 2)
    assert {(span.name, kind_of(span), span.status.status_code.name) for span in spans} == {
        (f"recall {topic}", "CLIENT", "ERROR")
    }


def test_hooks(producer: Producer, instrument: Callable[..., Any], recorded: Recorded, shared_topic: str) -> None:
    def send_hook(span: Any, sent: Message) -> None:
        span.set_attribute("app.body", sent.body.decode())

    def receipt_hook(span: Any, receipt: Any) -> None:
        raise RuntimeError(receipt.message_id)

    instrument(send_hook=send_hook, receipt_hook=receipt_hook)
    producer.send(message(shared_topic, b"hello"))
    attributes = recorded.only("send").attributes
    assert attributes is not None
    assert attributes["app.body"] == "hello"


@pytest.fixture
def propagate_by() -> Iterator[Callable[[Any], None]]:
    """Sets the global propagator for the test."""
    before = get_global_textmap()
    yield set_global_textmap
    set_global_textmap(before)


class OneField(TextMapPropagator):
    """Writes a field of its own, as B3 does."""

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        carrier["one-field"] = f"{get_current_span(context).get_span_context().span_id:x}"

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        return context

    @property
    def fields(self) -> set[str]:
        return {"one-field"}


def test_another_propagator_takes_the_place_of_what_was_forwarded(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any, propagate_by: Callable[[Any], None]
) -> None:
    topic, mine = devstack.topic("NORMAL", queues=1), {"baggage": "no field of that propagator's"}
    propagate_by(OneField())
    with instrumented.tracer.start_as_current_span("around") as around:
        inbound = f"00-{around.get_span_context().trace_id:032x}-b7ad6b7169203331-01"
        forwarded = message(topic, properties={**mine, "traceparent": inbound, "tracestate": "old=1"})
        producer.send(forwarded)
    (received,) = receive(poll(topic))
    assert received.properties == {**mine, "one-field": f"{instrumented.only('send').context.span_id:x}"}
    assert forwarded.properties == {**mine, "traceparent": inbound, "tracestate": "old=1"}


def test_another_propagator(
    producer: Producer, instrumented: Recorded, devstack: Any, poll: Any, propagate_by: Callable[[Any], None]
) -> None:
    topic = devstack.topic("NORMAL", queues=1)
    propagator = SpanbridgePropagator()
    propagate_by(propagator)
    producer.send(message(topic))
    (received,) = receive(poll(topic))
    assert received.properties
    assert propagator.fields >= set(received.properties)
    found = get_current_span(propagator.extract(received.properties)).get_span_context()
    assert found.span_id == instrumented.only("send").context.span_id
