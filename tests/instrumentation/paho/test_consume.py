"""The ``process`` span around callbacks, and the publishes inside them."""

from __future__ import annotations

import queue
import threading
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import SpanKind, StatusCode
from paho.mqtt import publish, subscribe
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge_instrumentation import process

CONSUMED = "messaging.client.consumed.messages"
PROCESSED = "messaging.process.duration"


class Handler:
    """A callback that keeps what was current when it ran."""

    def __init__(self) -> None:
        self.seen: queue.Queue[tuple[mqtt.MQTTMessage, Any, Any]] = queue.Queue()

    def __call__(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.seen.put((message, trace.get_current_span().get_span_context(), baggage.get_all()))

    def get(self) -> tuple[mqtt.MQTTMessage, Any, Any]:
        return self.seen.get(timeout=30)


def check_child(recorded: Any) -> None:
    (send,), (process_span,) = recorded.sends(), recorded.processes()
    assert process_span.parent.span_id == send.context.span_id
    assert process_span.parent.is_remote
    assert process_span.context.trace_id == send.context.trace_id


def test_the_callback_runs_in_a_process_span_that_is_the_senders_child(
    instrumented: Any, connect: Any, topic: str
) -> None:
    handler = Handler()
    client = connect(subscribe="tests/+/#", on_message=handler)
    token = attach(baggage.set_baggage("tenant", "blue, green"))
    client.publish(topic, b"hello", qos=1)
    detach(token)
    _, current, carried = handler.get()
    check_child(instrumented)
    (span,) = instrumented.processes()
    assert span.name == "process tests/+/#"
    assert span.kind is SpanKind.CONSUMER
    assert current.span_id == span.context.span_id
    assert carried == {"tenant": "blue, green"}
    (link,) = span.links
    assert link.context.span_id == span.parent.span_id
    assert dict(span.attributes) == {
        "messaging.system": "mqtt",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.destination.template": "tests/+/#",
        "messaging.message.body.size": 5,
        "messaging.mqtt.qos": span.attributes["messaging.mqtt.qos"],
        "messaging.mqtt.retain": False,
        "messaging.mqtt.dup": False,
        "messaging.client.id": client._client_id.decode(),
        "server.address": "127.0.0.1",
        "server.port": client.port,
    }
    assert instrumented.total(CONSUMED, messaging_destination_template="tests/+/#") == 1
    assert instrumented.total(PROCESSED, messaging_operation_type="process") == 1
    assert not trace.get_current_span().get_span_context().is_valid


class OverridesOnMessage(mqtt.Client):
    handler: Handler

    def on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.handler(client, userdata, message)


def as_subclass(handler: Handler) -> dict[str, Any]:
    return {"kind": type("Mine", (OverridesOnMessage,), {"handler": handler})}


def as_decorator(handler: Handler) -> dict[str, Any]:
    return {"prepare": lambda client: client.message_callback()(handler)}


def as_filtered(handler: Handler) -> dict[str, Any]:
    return {"prepare": lambda client: client.message_callback_add("tests/+/#", handler)}


def as_topic_decorator(handler: Handler) -> dict[str, Any]:
    return {"prepare": lambda client: client.topic_callback("tests/+/#")(handler)}


def as_version_1(handler: Handler) -> dict[str, Any]:
    return {"on_message": handler, "api": mqtt.CallbackAPIVersion.VERSION1}


@pytest.mark.parametrize("way", [as_subclass, as_decorator, as_filtered, as_topic_decorator, as_version_1])
@pytest.mark.filterwarnings("ignore:Callback API version 1:DeprecationWarning")
def test_every_way_of_giving_a_callback(instrumented: Any, connect: Any, topic: str, way: Any) -> None:
    handler = Handler()
    client = connect(subscribe=f"{topic}/#", **way(handler))
    client.publish(topic, b"x", qos=1)
    _, current, _ = handler.get()
    check_child(instrumented)
    assert current.span_id == instrumented.processes()[0].context.span_id


def test_several_filtered_callbacks_are_one_processing(instrumented: Any, connect: Any, topic: str) -> None:
    one, two = Handler(), Handler()
    client = connect(subscribe=f"{topic}/#")
    client.message_callback_add(f"{topic}/#", one)
    client.message_callback_add(f"{topic}/+", two)
    client.publish(f"{topic}/a", b"x", qos=1)
    assert one.get()[1].span_id == two.get()[1].span_id
    assert len(instrumented.processes()) == 1
    assert instrumented.total(CONSUMED) == 1


def test_without_a_callback_there_is_no_span(instrumented: Any, connect: Any, topic: str) -> None:
    handler = Handler()
    client = connect(subscribe=f"{topic}/#")
    client.message_callback_add(f"{topic}/other", handler)
    client.publish(f"{topic}/unhandled", b"x", qos=1)
    client.publish(f"{topic}/other", b"x", qos=1)
    handler.get()
    (span,) = instrumented.processes()
    assert span.attributes["messaging.destination.name"] == f"{topic}/other"
    assert instrumented.total(CONSUMED) == 1


def test_a_publish_in_a_callback_is_a_child_of_the_processing(instrumented: Any, connect: Any, topic: str) -> None:
    answered = Handler()

    def on_message(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        client.publish(f"{topic}/answer", b"pong", qos=1)

    connect(subscribe=f"{topic}/answer", on_message=answered)
    client = connect(subscribe=f"{topic}/ask", on_message=on_message)
    client.publish(f"{topic}/ask", b"ping", qos=1)
    answered.get()
    ask, answer = sorted(instrumented.sends(2), key=lambda span: span.start_time)
    first, second = sorted(instrumented.processes(2), key=lambda span: span.start_time)
    assert first.parent.span_id == ask.context.span_id
    assert answer.parent.span_id == first.context.span_id
    assert second.parent.span_id == answer.context.span_id


@pytest.mark.parametrize("carrier", ["topic", "json"])
def test_an_answer_of_a_version_3_device_is_a_child_of_the_processing(
    instrument: Any, recorded: Any, connect: Any, topic: str, carrier: str
) -> None:
    instrument(v311_carrier=carrier)
    answered = Handler()

    def on_ask(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        client.publish(f"{topic}/answer", message.payload, qos=1)

    connect("3.1.1", subscribe=f"{topic}/answer/#", on_message=answered)
    client = connect("3.1.1", subscribe=f"{topic}/ask/#")
    client.message_callback_add(f"{topic}/ask", on_ask)
    client.publish(f"{topic}/ask", '{"ask": "state"}', qos=1)
    answer = answered.get()[0]
    assert (answer.topic, answer.payload) == (f"{topic}/answer", b'{"ask": "state"}')
    ask, sent = sorted(recorded.sends(2), key=lambda span: span.start_time)
    first, second = sorted(recorded.processes(2), key=lambda span: span.start_time)
    assert first.parent.span_id == ask.context.span_id
    assert sent.parent.span_id == first.context.span_id
    assert second.parent.span_id == sent.context.span_id


def test_an_answer_keeps_response_topic_and_correlation_data(instrumented: Any, connect: Any, topic: str) -> None:
    answered = Handler()

    def on_message(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = message.properties.CorrelationData
        client.publish(message.properties.ResponseTopic, b"pong", qos=1, properties=properties)

    connect(subscribe=f"{topic}/answer", on_message=answered)
    client = connect(subscribe=f"{topic}/ask", on_message=on_message)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic, properties.CorrelationData = f"{topic}/answer", b"42"
    client.publish(f"{topic}/ask", b"ping", qos=1, properties=properties)
    assert answered.get()[0].properties.CorrelationData == b"42"
    spans = [*instrumented.sends(2), *instrumented.processes(2)]
    assert {span.context.trace_id for span in spans} == {spans[0].context.trace_id}
    assert {span.attributes["messaging.message.conversation_id"] for span in spans} == {"42"}


@pytest.mark.parametrize("suppressed", [False, True])
def test_what_a_callback_raises_is_recorded(instrumented: Any, scripted: Any, suppressed: bool) -> None:
    logged = []

    def on_message(*_: Any) -> None:
        raise KeyError("broken")

    client = scripted.client(loop=False)
    client.on_message = on_message
    client.on_log = lambda _c, _u, _level, text: logged.append(text)
    client.suppress_exceptions = suppressed
    client.loop_read()
    scripted.publish("a", b"x")
    if suppressed:
        client.loop_read()
    else:
        with pytest.raises(KeyError):
            client.loop_read()
    (span,) = instrumented.processes()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "KeyError"
    assert span.events[0].attributes["exception.type"] == "KeyError"
    assert instrumented.total(PROCESSED, error_type="KeyError") == 1
    assert instrumented.total(CONSUMED) == 1
    assert any("Caught exception in on_message" in text for text in logged)
    assert "_easy_log" not in client.__dict__


def test_external_loops_run_in_the_callers_context(instrumented: Any, scripted: Any) -> None:
    handler = Handler()
    client = scripted.client(loop=False)
    client.on_message = handler
    client.loop_read()
    scripted.publish("a", b"x")
    with instrumented.tracer.start_as_current_span("loop") as around:
        client.loop_read()
    _, current, _ = handler.get()
    span = instrumented.processes()[0]
    assert current.span_id == span.context.span_id
    assert span.parent.span_id == around.get_span_context().span_id


def test_loop_forever_with_a_span_around_it_is_linked(instrumented: Any, connect: Any, topic: str) -> None:
    def on_message(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        client.disconnect()

    sender = connect()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = on_message
    client.on_subscribe = lambda *_: sender.publish(topic, b"x", qos=1)
    client.on_connect = lambda *_: client.subscribe(topic)
    client.connect(sender.host, sender.port)
    with instrumented.tracer.start_as_current_span("main") as around:
        client.loop_forever()
    (span,), (send,) = instrumented.processes(), instrumented.sends()
    assert span.parent.span_id == send.context.span_id
    assert [link.context.span_id for link in span.links] == [
        send.context.span_id,
        around.get_span_context().span_id,
    ]


def test_process_in_the_callback_of_the_same_message_joins_its_span(
    instrumented: Any, connect: Any, topic: str
) -> None:
    done = threading.Event()

    def on_message(_client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        with process(message) as span:
            span.set_attribute("inside", True)
        done.set()

    connect(subscribe=topic, on_message=on_message).publish(topic, b"x", qos=1)
    assert done.wait(30)
    (span,) = instrumented.processes()
    assert span.attributes["inside"] is True


def test_process_in_a_worker_that_got_the_message(instrumented: Any, connect: Any, topic: str) -> None:
    handler = Handler()
    connect(subscribe="tests/+/#", on_message=handler).publish(topic, b"x", qos=1)
    message, _, _ = handler.get()
    instrumented.processes()
    with process(message), instrumented.tracer.start_as_current_span("work") as work:
        pass
    send = instrumented.sends()[0]
    worker = instrumented.processes(2)[1]
    assert worker.name == "process tests/+/#"
    assert worker.parent.span_id == send.context.span_id
    assert work.parent.span_id == worker.context.span_id


def test_suppressed_delivery(instrumented: Any, scripted: Any) -> None:
    handler = Handler()
    client = scripted.client(loop=False)
    client.on_message = handler
    client.loop_read()
    scripted.publish("a", b"x")
    with suppress_instrumentation():
        client.loop_read()
    assert handler.get()[0].payload == b"x"
    assert instrumented.spans() == []
    assert instrumented.points(CONSUMED) == []


def test_a_consume_hook_sees_span_and_message(instrument: Any, recorded: Any, connect: Any, topic: str) -> None:
    instrument(consume_hook=lambda span, message: span.set_attribute("first", message.payload[:1]))
    handler = Handler()
    connect(subscribe=topic, on_message=handler).publish(topic, b"xyz", qos=1)
    handler.get()
    assert recorded.processes()[0].attributes["first"] == b"x"


def test_topics_that_are_no_utf8_are_delivered(instrumented: Any, scripted: Any) -> None:
    arrived = []
    client = scripted.client(loop=False)
    client.on_message = lambda _c, _u, message: arrived.append(message.payload)
    client.loop_read()
    scripted.publish(b"\xff\xfe", b"x")
    client.loop_read()
    assert arrived == [b"x"]
    assert instrumented.processes()[0].name == "process"


def test_names_and_labels_stay_few(instrumented: Any, connect: Any, topic: str) -> None:
    handler = Handler()
    client = connect(subscribe=f"{topic}/#", on_message=handler)
    for number in range(30):
        client.publish(f"{topic}/{number}", b"x", qos=1)
    for _ in range(30):
        handler.get()
    assert {span.name for span in instrumented.processes(30)} == {"process tests/+/#"}
    assert len(instrumented.points(CONSUMED)) == 1
    assert len(instrumented.points(PROCESSED)) == 1


def test_the_helpers_of_paho_mqtt_subscribe(instrumented: Any, mqtt_devstack: Any, topic: str) -> None:
    broker = mqtt_devstack.mqtt_v5
    where: dict[str, Any] = {"hostname": broker.host, "port": broker.port, "protocol": mqtt.MQTTv5}

    def stop(client: mqtt.Client, _userdata: Any, _message: mqtt.MQTTMessage) -> None:
        client.disconnect()

    publish.single(topic, b"x", qos=1, retain=True, **where)
    subscribe.callback(stop, topic, clean_session=None, **where)
    (called,) = instrumented.processes()
    message = subscribe.simple(topic, clean_session=None, **where)
    assert instrumented.processes() == [called]  # nobody has processed the message yet
    assert instrumented.total(CONSUMED) == 2
    with process(message):
        pass
    (send,), (_, processed) = instrumented.sends(), instrumented.processes(2)
    assert [span.parent.span_id for span in (called, processed)] == [send.context.span_id] * 2
    publish.single(topic, b"", qos=1, retain=True, **where)


def test_a_callback_that_hangs_shows_while_it_hangs(instrumented: Any, connect: Any, topic: str) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def handle(client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        reached.set()
        go_on.wait(60)

    client = connect(subscribe="tests/+/#", on_message=handle)
    try:
        client.publish(topic, b"x", qos=1)
        assert reached.wait(60)
        held = {"messaging_destination_template": "tests/+/#"}
        assert instrumented.total("spanbridge.consumer.in_flight", **held) == 1
        assert instrumented.total("spanbridge.consumer.in_flight.age", **held) > 0
        delayed = instrumented.total("spanbridge.delivery.delay", spanbridge_delivery_delay_since="received", **held)
        assert delayed == 1
    finally:
        go_on.set()
    instrumented.processes()
