"""The bridge a Python user would write today, as a fair opponent.

paho-mqtt hands over a message, rocketmq-python-client sends it with ``send_async``, and the MQTT acknowledgement
leaves when that has a result. What is in flight is bounded (by Receive Maximum, and a semaphore since brokers overrun
it), acknowledgements leave in receive order (MQTT-4.6.0-2; rumqttd stalls a client that breaks it), a failed send is
tried again, nothing is acknowledged that is not stored. With ``--traced`` each message gets the two spans of the
semantic conventions from the OpenTelemetry SDK, as children of the device's context, which travels on.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from rocketmq import ClientConfiguration, Credentials, Message, Producer


@dataclass(slots=True, eq=False)
class Pending:
    """A message whose acknowledgement is owed."""

    received: mqtt.MQTTMessage
    stored: bool = False


IN_FLIGHT = 256
"""The best of 64 to 1024 for this client (higher ones only add latency)."""


class Bridge:
    """MQTT to RocketMQ, message by message."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._tracer = trace.get_tracer("baseline") if options.traced else None
        self._slots = threading.BoundedSemaphore(IN_FLIGHT)
        self._owed: deque[Pending] = deque()
        self._lock = threading.Lock()
        configuration = ClientConfiguration(options.endpoints, Credentials())
        self._producer = Producer(configuration, (options.topic,))
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, options.client_id, protocol=mqtt.MQTTv5, manual_ack=True)
        self._mqtt.on_connect = self._on_connect
        self._mqtt.on_message = self._on_message

    def start(self) -> None:
        """Connect both sides; messages flow from here on, in the clients' threads."""
        self._producer.startup()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = IN_FLIGHT
        self._mqtt.connect(self._options.host, self._options.port, clean_start=True, properties=properties)
        self._mqtt.loop_start()

    def stop(self) -> None:
        """Take no more messages, let the last results arrive, disconnect."""
        self._mqtt.unsubscribe(self._options.filter)
        deadline = time.monotonic() + 5
        for _ in range(IN_FLIGHT):
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic()))
        self._mqtt.disconnect()
        self._mqtt.loop_stop()
        self._producer.shutdown()

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(self._options.filter, qos=1)

    def _on_message(self, _client: mqtt.Client, _userdata: Any, received: mqtt.MQTTMessage) -> None:
        self._slots.acquire()
        pending = Pending(received)
        with self._lock:
            self._owed.append(pending)
        message = Message()
        message.topic = self._options.topic
        message.body = received.payload
        message.add_property("mqtt.topic", received.topic)
        if self._tracer is None:
            self._send(message, pending, None)
            return
        carrier = dict(getattr(received.properties, "UserProperty", ()))
        with self._tracer.start_as_current_span(
            f"process {self._options.filter}",
            context=propagate.extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "mqtt",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": received.topic,
                "messaging.destination.template": self._options.filter,
                "server.address": self._options.host,
                "server.port": self._options.port,
            },
        ):
            span = self._tracer.start_span(
                f"send {self._options.topic}",
                kind=SpanKind.PRODUCER,
                attributes={
                    "messaging.system": "rocketmq",
                    "messaging.operation.name": "send",
                    "messaging.operation.type": "send",
                    "messaging.destination.name": self._options.topic,
                    "messaging.message.body.size": len(received.payload),
                    "server.address": self._options.endpoints.partition(":")[0],
                    "server.port": int(self._options.endpoints.partition(":")[2]),
                },
            )
            outgoing: dict[str, str] = {}
            propagate.inject(outgoing, trace.set_span_in_context(span))
            for key, value in outgoing.items():
                message.add_property(key, value)
            self._send(message, pending, span)

    def _send(self, message: Message, pending: Pending, span: Span | None) -> None:
        def settle(result: Future[Any]) -> None:
            if result.exception() is not None:
                # From a thread of its own: the client's callback thread would wait for itself.
                threading.Timer(0.1, self._send, (message, pending, span)).start()
                return
            if span is not None:
                span.set_attribute("messaging.message.id", result.result().message_id)
                span.end()
            self._settle(pending)

        self._producer.send_async(message).add_done_callback(settle)

    def _settle(self, pending: Pending) -> None:
        """Acknowledge everything that is stored up to the first message that is not."""
        with self._lock:
            pending.stored = True
            while self._owed and self._owed[0].stored:
                received = self._owed.popleft().received
                self._mqtt.ack(received.mid, received.qos)
                self._slots.release()


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--filter", required=True)
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--endpoints", required=True, help="HOST:PORT of RocketMQ's gRPC proxy")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--traced", action="store_true")
    options = parser.parse_args()
    if options.traced:
        provider = TracerProvider(resource=Resource.create())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # OTEL_EXPORTER_OTLP_* apply
        trace.set_tracer_provider(provider)
    bridge = Bridge(options)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    bridge.start()
    ended.wait()
    bridge.stop()
    if options.traced:
        provider.shutdown()


if __name__ == "__main__":
    main()
