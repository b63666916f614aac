"""An MQTT v5 device. Each reading is a trace of its own; its context travels in the message's user properties.

    OTEL_SERVICE_NAME=device-v5 OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 \\
        python device_v5.py --host 127.0.0.1 --port 1883 --messages 5

It also answers commands, to the response topic and with the correlation data that they name: the answer is part of the
trace of who asked (ask.py). With ``--commands 3`` it stays until it has answered three.
"""

import argparse
import json
import queue
import random
import threading
import time

import paho.mqtt.client as mqtt
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge_context import inject_user_properties
from spanbridge_context.otel import SpanbridgePropagator, from_span_context, user_property_getter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("device-v5")
propagator = SpanbridgePropagator()


def about(operation: str, topic: str, template: str) -> dict[str, str]:
    """The attributes of a span that sends or processes a message."""
    return {
        "messaging.system": "mqtt",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
        "messaging.destination.template": template,
    }


class Device:
    """Publishes readings and answers commands; a send span lasts until the broker has acknowledged its message."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.seq = 0
        self.lost = 0
        self.celsius = 21.0
        self.answered = threading.Semaphore(0)
        self.sent: queue.SimpleQueue[tuple[mqtt.MQTTMessageInfo, trace.Span] | None] = queue.SimpleQueue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.on_connect = lambda client, *_: client.subscribe(f"devices/{name}/commands", qos=1)
        self.client.on_subscribe = lambda *_: print("ready", flush=True)
        self.client.on_message = self.command
        self.client.connect(host, port)
        self.client.loop_start()
        self.waiter = threading.Thread(target=self.wait)
        self.waiter.start()

    def read(self) -> None:
        with tracer.start_as_current_span("read sensor"):
            self.seq += 1
            self.celsius = round(random.gauss(21, 2), 1)
            reading = {"device": self.name, "seq": self.seq, "celsius": self.celsius}
            self.publish(f"devices/{self.name}/telemetry", "devices/{device}/telemetry", reading)

    def command(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        """Answer a command; called in a thread of the client."""
        # The lines that take the context off the message:
        pairs = getattr(message.properties, "UserProperty", [])
        parent = propagator.extract(pairs, getter=user_property_getter)
        what = about("process", message.topic, "devices/{device}/commands")
        with tracer.start_as_current_span("process devices/{device}/commands", parent, SpanKind.CONSUMER, what):
            state = {"device": self.name, "celsius": self.celsius, "readings": self.seq}
            topic = getattr(message.properties, "ResponseTopic", f"devices/{self.name}/answers")
            correlation = getattr(message.properties, "CorrelationData", None)
            self.publish(topic, "devices/{device}/answers", state, correlation)
        self.answered.release()

    def publish(self, topic: str, template: str, body: dict[str, object], correlation: bytes | None = None) -> None:
        span = tracer.start_span(f"send {template}", kind=SpanKind.PRODUCER, attributes=about("send", topic, template))
        properties = Properties(PacketTypes.PUBLISH)
        # The two lines that put the context on the message:
        context = from_span_context(span.get_span_context())
        properties.UserProperty = inject_user_properties([], context)
        if correlation is not None:
            properties.CorrelationData = correlation
        sent = self.client.publish(topic, json.dumps(body), qos=1, properties=properties)
        self.sent.put((sent, span))

    def wait(self) -> None:
        """End each span at its acknowledgement; they come in the order of the messages."""
        while item := self.sent.get():
            sent, span = item
            sent.wait_for_publish(timeout=10)
            self.lost += not sent.is_published()
            span.end()

    def close(self) -> None:
        """Wait until the broker has acknowledged everything, then disconnect."""
        self.sent.put(None)
        self.waiter.join()
        self.client.disconnect()
        self.client.loop_stop()
        if self.lost:
            raise SystemExit(f"{self.name}: {self.lost} messages were not acknowledged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--name", default="sensor-1")
    parser.add_argument("--messages", type=int, default=10, help="readings sent one by one")
    parser.add_argument("--burst", type=int, default=0, help="further readings, sent all at once")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between single readings")
    parser.add_argument("--commands", type=int, default=0, help="commands to answer before it leaves")
    options = parser.parse_args()
    device = Device(options.name, options.host, options.port)
    for _ in range(options.messages):
        device.read()
        time.sleep(options.interval)
    for _ in range(options.burst):
        device.read()
    for _ in range(options.commands):
        device.answered.acquire()
    device.close()
    provider.shutdown()
    print(f"{device.name}: {device.seq} readings sent and acknowledged, {options.commands} commands answered")


if __name__ == "__main__":
    main()
