"""paho's cases: a publish to a socket that takes all, and the callback of a message with a context."""

from __future__ import annotations

from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.instrumentors_floor import Case, Floor
from spanbridge_context import TraceContext
from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation.paho import PahoInstrumentor

_PAYLOAD: Final = b"x" * 128
_TOPIC: Final = "devices/d17/telemetry"
_TEMPLATE: Final = "devices/+/telemetry"


class _Sink:
    """A socket that takes everything at once."""

    def send(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None:
        pass

    def fileno(self) -> int:
        return -1


def _client() -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="bench", protocol=mqtt.MQTTv5)
    client._sock = _Sink()  # type: ignore[assignment]
    client._host, client._port = "localhost", 1883
    return client


def _labels(operation: str) -> dict[str, Any]:
    return {
        semconv.SYSTEM: "mqtt",
        semconv.OPERATION_NAME: operation,
        semconv.OPERATION_TYPE: operation,
        semconv.SERVER_ADDRESS: "localhost",
        semconv.SERVER_PORT: 1883,
        semconv.DESTINATION_TEMPLATE: _TEMPLATE,
    }


def publish(_sampled: bool) -> Case:
    """``publish`` with QoS 0, whose span ends in the call."""
    client = _client()
    labels = _labels("send")
    attributes = {
        **labels,
        semconv.DESTINATION_NAME: _TOPIC,
        "messaging.mqtt.qos": 0,
        "messaging.mqtt.retain": False,
        semconv.CLIENT_ID: "bench",
        semconv.BODY_SIZE: len(_PAYLOAD),
    }

    def call() -> None:
        client.publish(_TOPIC, _PAYLOAD, 0)

    def sdk(floor: Floor, metrics: bool) -> None:
        floor.send(f"send {_TEMPLATE}", attributes, labels, call, metrics)

    return Case("paho publish", PahoInstrumentor(), call, call, sdk)


def callback(sampled: bool) -> Case:
    """``on_message`` of a message whose sender was traced."""
    client = _client()
    client.on_message = lambda *_: None
    message = mqtt.MQTTMessage(1, _TOPIC.encode())
    message.payload, message.timestamp = _PAYLOAD, 1.0
    message.properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    context = TraceContext.new(sampled)
    message.properties.UserProperty = ("tp", context.compact)
    carrier = {"traceparent": context.traceparent}
    labels = _labels("process")
    delay_labels = {**labels, semconv.DELAY_SINCE: "received"}
    link = {semconv.DESTINATION_NAME: _TOPIC}
    attributes = {
        **labels,
        **link,
        "messaging.mqtt.qos": 0,
        "messaging.mqtt.retain": False,
        "messaging.mqtt.dup": False,
        semconv.CLIENT_ID: "bench",
        semconv.BODY_SIZE: len(_PAYLOAD),
    }

    def call() -> None:
        client._handle_on_message(message)

    def sdk(floor: Floor, metrics: bool) -> None:
        floor.process(
            f"process {_TEMPLATE}", attributes, labels, carrier, call, metrics,
            link=link, delay=1.0, delay_labels=delay_labels,
        )  # fmt: skip

    return Case("paho on_message", PahoInstrumentor(), call, call, sdk)
