"""The ``send`` span: what it covers, when it ends, what it says."""

from __future__ import annotations

import gc
import threading
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.trace import SpanKind, StatusCode
from paho.mqtt import publish as helpers

from spanbridge_instrumentation.paho.pending import PENDING

VERSIONS = ["5", "3.1.1"]
DURATION = "messaging.client.operation.duration"
SENT = "messaging.client.sent.messages"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_is_one_send_span_and_one_count(
    instrumented: Any, connect: Any, topic: str, version: str, qos: int
) -> None:
    client = connect(version)
    info = client.publish(topic, b"hello", qos=qos)
    info.wait_for_publish(5)
    (span,) = instrumented.sends()
    assert span.name == "send tests/+"
    assert span.kind is (SpanKind.PRODUCER if version == "5" else SpanKind.CLIENT)  # 3.1.1 carries no context
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    seen = dict(span.attributes)
    if qos:
        assert seen.pop("messaging.mqtt.reason_code") in (0x00, 0x10)  # 0x10: nobody has subscribed
    assert seen == {
        "messaging.system": "mqtt",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.destination.template": "tests/+",
        "messaging.client.id": client._client_id.decode(),
        "messaging.message.body.size": 5,
        "messaging.mqtt.qos": qos,
        "messaging.mqtt.retain": False,
        "server.address": "127.0.0.1",
        "server.port": client.port,
    }
    assert instrumented.total(SENT) == 1
    assert instrumented.total(DURATION, messaging_operation_name="send") == 1
    assert len(PENDING) == 0


def test_the_histogram_has_the_buckets_of_the_convention_and_labels_of_low_cardinality(
    instrumented: Any, connect: Any, topic: str
) -> None:
    client = connect()
    for number in range(20):
        client.publish(f"{topic}/{number}", b"x", qos=1).wait_for_publish(5)
    instrumented.sends(20)
    (point,) = instrumented.points(DURATION)
    assert isinstance(point, HistogramDataPoint)
    assert point.count == 20
    assert point.explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert {span.name for span in instrumented.spans()} == {"send tests/+/+"}
    assert set(point.attributes) == {
        "messaging.system",
        "messaging.destination.template",
        "messaging.operation.name",
        "messaging.operation.type",
        "server.address",
        "server.port",
    }


def test_the_span_lasts_until_the_acknowledgement(instrumented: Any, scripted: Any) -> None:
    client = scripted.client()
    info = client.publish("a", b"x", qos=1)
    scripted.expect("PUBLISH")
    assert instrumented.spans() == []
    assert len(PENDING) == 1
    scripted.puback(info.mid)
    (span,) = instrumented.sends()
    assert span.attributes["messaging.mqtt.reason_code"] == 0
    assert len(PENDING) == 0


def test_qos_2_lasts_until_pubcomp(instrumented: Any, scripted: Any) -> None:
    client = scripted.client()
    info = client.publish("a", b"x", qos=2)
    scripted.expect("PUBLISH")
    scripted.pubrec(info.mid)
    scripted.expect("PUBREL")
    assert instrumented.spans() == []
    scripted.pubcomp(info.mid)
    instrumented.sends()


def test_a_reason_code_that_refuses_is_the_error(instrumented: Any, scripted: Any) -> None:
    client = scripted.client()
    info = client.publish("a", b"x", qos=1)
    scripted.puback(info.mid, reason=0x87)
    (span,) = instrumented.sends()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "Not authorized"
    assert span.attributes["messaging.mqtt.reason_code"] == 0x87
    assert instrumented.total(SENT, error_type="Not authorized") == 1
    assert instrumented.total(DURATION, error_type="Not authorized") == 1


def test_no_matching_subscribers_is_no_error(instrumented: Any, scripted: Any) -> None:
    client = scripted.client()
    scripted.puback(client.publish("a", b"x", qos=1).mid, reason=0x10)
    (span,) = instrumented.sends()
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in span.attributes


@pytest.mark.parametrize("reason", [0x00, 0x97])
def test_an_acknowledgement_that_is_read_before_publish_returned(
    instrument: Any, recorded: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    original = mqtt.Client.publish

    def slow(client: mqtt.Client, *args: Any, **kwargs: Any) -> mqtt.MQTTMessageInfo:
        info = original(client, *args, **kwargs)
        scripted.puback(info.mid, reason=reason)
        info._condition.acquire()
        while not info._published:
            info._condition.wait(1)
        info._condition.release()
        return info

    monkeypatch.setattr(mqtt.Client, "publish", slow)
    instrument()
    client = scripted.client()
    client.publish("a", b"x", qos=1)
    (span,) = recorded.sends()
    assert span.attributes.get("error.type") == (None if reason == 0 else "Quota exceeded")
    assert len(PENDING) == 0


@pytest.mark.parametrize("qos", [0, 1])
def test_publishing_without_a_connection_is_an_error(instrumented: Any, qos: int) -> None:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    assert client.publish("a", b"x", qos=qos).rc == mqtt.MQTT_ERR_NO_CONN
    (span,) = instrumented.sends()
    assert span.attributes["error.type"] == "MQTT_ERR_NO_CONN"
    assert instrumented.total(SENT, error_type="MQTT_ERR_NO_CONN") == 1
    assert len(PENDING) == 0


def test_a_full_queue_is_an_error(instrumented: Any, scripted: Any) -> None:
    client = scripted.client(prepare=lambda client: client.max_queued_messages_set(1))
    client.publish("a", b"x", qos=1)
    assert client.publish("a", b"x", qos=1).rc == mqtt.MQTT_ERR_QUEUE_SIZE
    (span,) = instrumented.sends()
    assert span.attributes["error.type"] == "MQTT_ERR_QUEUE_SIZE"


def test_what_publish_raises_is_recorded_and_raised(instrumented: Any, connect: Any) -> None:
    client = connect()
    with pytest.raises(ValueError, match="QoS"):
        client.publish("a", b"x", qos=3)
    with pytest.raises(ValueError, match="opic"):
        client.publish("a/#", b"x")
    spans = instrumented.sends(2)
    assert {span.attributes["error.type"] for span in spans} == {"ValueError"}
    assert all(span.events[0].name == "exception" for span in spans)


def test_disconnecting_ends_what_is_unacknowledged(instrumented: Any, scripted: Any) -> None:
    client = scripted.client()
    client.publish("a", b"x", qos=1)
    scripted.expect("PUBLISH")
    client.disconnect()
    (span,) = instrumented.sends()
    assert span.attributes["error.type"] == "disconnected"
    assert len(PENDING) == 0


def test_a_lost_connection_leaves_the_span_open_until_the_second_delivery_is_acknowledged(
    instrumented: Any, scripted: Any
) -> None:
    client = scripted.client()
    client.reconnect_delay_set(1, 1)
    info = client.publish("a", b"x", qos=1)
    scripted.expect("PUBLISH")
    scripted.drop()
    scripted.accept()
    scripted.expect("PUBLISH")
    assert instrumented.spans() == []
    scripted.puback(info.mid)
    (span,) = instrumented.sends()
    assert span.status.status_code is StatusCode.UNSET


def test_a_client_that_is_dropped_ends_its_spans(instrumented: Any, scripted: Any) -> None:
    client = scripted.client(loop=False)
    client.publish("a", b"x", qos=1)
    assert len(PENDING) == 1
    scripted.forget()
    client._reset_sockets()
    del client
    gc.collect()
    # Whoever asked for memory may hold the SDK's locks: nothing is recorded before somebody publishes.
    assert instrumented.spans() == []
    mqtt.Client(mqtt.CallbackAPIVersion.VERSION2).publish("a", b"x")
    assert [span.attributes["error.type"] for span in instrumented.sends(2)] == ["client_gone", "MQTT_ERR_NO_CONN"]


def test_dropping_queued_messages_ends_their_spans(instrumented: Any, scripted: Any) -> None:
    client = scripted.client()
    if not hasattr(client, "drop_out_messages"):
        pytest.skip("new in paho-mqtt 2.2")
    client.publish("a", b"x", qos=1)
    client.drop_out_messages()
    (span,) = instrumented.sends()
    assert span.attributes["error.type"] == "dropped"


def test_what_waits_is_bounded_in_number(instrumented: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PENDING, "_limit", 5)
    client = scripted.client()
    for _ in range(12):
        client.publish("a", b"x", qos=1)
    assert len(PENDING) == 5
    assert {span.attributes["error.type"] for span in instrumented.sends(7)} == {"too_many_pending"}


def test_what_waits_is_bounded_in_time(instrument: Any, recorded: Any, scripted: Any) -> None:
    instrument(ack_timeout=0.001)
    client = scripted.client(loop=False)
    client.publish("a", b"x", qos=1)
    threading.Event().wait(0.01)
    client.publish("a", b"x", qos=1)
    (span,) = recorded.sends()
    assert span.attributes["error.type"] == "acknowledgement_timeout"
    assert len(PENDING) == 1
    threading.Event().wait(0.01)
    client.publish("a", b"x", qos=0)  # waits for nothing itself
    assert [span.attributes.get("error.type") for span in recorded.sends(3)].count("acknowledgement_timeout") == 2
    assert len(PENDING) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_helpers_of_paho_mqtt_publish(instrumented: Any, mqtt_devstack: Any, topic: str, version: str) -> None:
    broker = mqtt_devstack.mqtt_v5 if version == "5" else mqtt_devstack.mqtt_v311
    protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
    with instrumented.tracer.start_as_current_span("user") as parent:
        helpers.single(topic, b"one", qos=1, hostname=broker.host, port=broker.port, protocol=protocol)
        helpers.multiple(
            [(topic, b"two", 0, False), {"topic": topic, "payload": b"three", "qos": 2}],
            hostname=broker.host,
            port=broker.port,
            protocol=protocol,
        )
    spans = instrumented.sends(3)
    assert sorted(span.attributes["messaging.mqtt.qos"] for span in spans) == [0, 1, 2]
    assert {span.parent.span_id for span in spans} == {parent.get_span_context().span_id}
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}


def test_nothing_is_done_while_instrumentation_is_suppressed(instrumented: Any, connect: Any, topic: str) -> None:
    received: list[mqtt.MQTTMessage] = []
    client = connect(subscribe=f"{topic}/#", on_message=lambda _c, _u, m: received.append(m))
    with suppress_instrumentation():
        client.publish(f"{topic}/a", b"x", qos=1).wait_for_publish(5)
    process = instrumented.processes()[0]
    assert process.parent is None
    assert instrumented.spans("send") == []
    assert instrumented.points(SENT) == []
    assert not hasattr(received[0].properties, "UserProperty")


def test_hooks_see_the_span_and_cannot_fail_the_message(
    instrument: Any, recorded: Any, connect: Any, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    def publish_hook(span: Any, topic: str, payload: Any, properties: Any) -> None:
        seen.append((topic, payload))
        span.set_attribute("by.hook", 1)
        raise RuntimeError("broken hook")

    instrument(publish_hook=publish_hook, ack_hook=lambda span, info, reason: span.set_attribute("mid", info.mid))
    client = connect()
    info = client.publish(topic, b"x", qos=1)
    info.wait_for_publish(5)
    (span,) = recorded.sends()
    assert seen == [(topic, b"x")]
    assert (span.attributes["by.hook"], span.attributes["mid"]) == (1, info.mid)
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    "options",
    [{"topic_templates": ["tests/+/#"]}, {"topic_template": lambda topic: "tests/+/#" if "/" in topic else None}],
    ids=["filters", "function"],
)
def test_templates_name_span_and_label(
    instrument: Any, recorded: Any, connect: Any, topic: str, options: dict[str, Any]
) -> None:
    instrument(**options)
    connect().publish(topic, b"x", qos=1).wait_for_publish(5)
    (span,) = recorded.sends()
    assert span.name == "send tests/+/#"
    assert recorded.total(SENT, messaging_destination_template="tests/+/#") == 1
