"""An MQTT v3.1.1 device. That version has no user properties, so the context travels as a suffix of the topic.

The gateway takes the suffix off; its route needs ``carriers = ["topic-suffix"]``.

    OTEL_SERVICE_NAME=meter-v311 OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 \\
        python device_v311.py --host 127.0.0.1 --port 1883 --messages 5

Commands come to it the same way: their downlink has ``carrier = "topic-suffix"``, and the device takes it off. What
MQTT 5 has response topic and correlation data for is here a topic that both sides know, and a member of the payload.
"""

import argparse
import json
import random
import threading
import time

import paho.mqtt.client as mqtt
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanKind

from spanbridge_context import inject_topic
from spanbridge_context.otel import from_span_context, to_span_context
from spanbridge_context.topic import split_topic, suffix_filter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("device-v311")


def about(operation: str, topic: str, template: str) -> dict[str, str]:
    """The attributes of a span that sends or processes a message."""
    return {
        "messaging.system": "mqtt",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
        "messaging.destination.template": template,
    }


class Meter:
    """Publishes readings and answers commands."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.kwh = 1000.0
        self.answers: dict[int, trace.Span] = {}
        self.answered = threading.Semaphore(0)
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.client.on_connect = self.subscribe
        self.client.on_subscribe = lambda *_: print("ready", flush=True)
        self.client.on_message = self.command
        self.client.on_publish = self.acknowledged
        self.client.connect(host, port)
        self.client.loop_start()

    def subscribe(self, client: mqtt.Client, *_: object) -> None:
        """To commands as they are, and with a context behind them."""
        topic = f"meters/{self.name}/commands"
        client.subscribe([(topic, 1), (suffix_filter(topic), 1)])

    def read(self, seq: int) -> None:
        """Send one reading and wait until the broker has acknowledged it."""
        with tracer.start_as_current_span("read meter"):
            self.kwh = round(1000 + seq * 0.1 + random.random() / 10, 3)
            reading = {"device": self.name, "seq": seq, "kwh": self.kwh}
            sent, span = self.publish(f"meters/{self.name}/reading", "meters/{meter}/reading", reading)
            sent.wait_for_publish(timeout=10)
            span.end()
            if not sent.is_published():
                raise SystemExit(f"{self.name}: reading {seq} was not acknowledged")

    def command(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        """Answer a command; called in the client's thread."""
        # The lines that take the context off the message:
        topic, context, _ = split_topic(message.topic)
        parent = None if context is None else trace.set_span_in_context(NonRecordingSpan(to_span_context(context)))
        what = about("process", topic, "meters/{meter}/commands")
        with tracer.start_as_current_span("process meters/{meter}/commands", parent, SpanKind.CONSUMER, what):
            answer = {"device": self.name, "id": json.loads(message.payload)["id"], "kwh": self.kwh}
            sent, span = self.publish(f"meters/{self.name}/answers", "meters/{meter}/answers", answer)
            self.answers[sent.mid] = span  # a wait in here would keep the acknowledgement from being read

    def acknowledged(self, client: mqtt.Client, userdata: object, mid: int, *_: object) -> None:
        """The broker has a message, an answer perhaps; called in the client's thread."""
        span = self.answers.pop(mid, None)
        if span is not None:
            span.end()
            self.answered.release()

    def publish(self, topic: str, template: str, body: dict[str, object]) -> tuple[mqtt.MQTTMessageInfo, trace.Span]:
        span = tracer.start_span(f"send {template}", kind=SpanKind.PRODUCER, attributes=about("send", topic, template))
        # The two lines that put the context on the message:
        context = from_span_context(span.get_span_context())
        return self.client.publish(inject_topic(topic, context), json.dumps(body), qos=1), span


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--name", default="meter-1")
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between readings")
    parser.add_argument("--commands", type=int, default=0, help="commands to answer before it leaves")
    options = parser.parse_args()
    meter = Meter(options.name, options.host, options.port)
    for seq in range(1, options.messages + 1):
        meter.read(seq)
        time.sleep(options.interval)
    for _ in range(options.commands):
        meter.answered.acquire()
    meter.client.disconnect()
    meter.client.loop_stop()
    provider.shutdown()
    print(f"{options.name}: {options.messages} readings sent and acknowledged, {options.commands} commands answered")


if __name__ == "__main__":
    main()
