"""An MQTT v5 device. Each reading is a trace of its own; its context travels in the message's user properties.

    OTEL_SERVICE_NAME=device-v5 OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 \\
        python device_v5.py --host 127.0.0.1 --port 1883 --messages 5
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
from spanbridge_context.otel import from_span_context

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("device-v5")


class Device:
    """Publishes readings; a span lasts until the broker has acknowledged its message."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.topic = f"devices/{name}/telemetry"
        self.seq = 0
        self.lost = 0
        self.sent: queue.SimpleQueue[tuple[mqtt.MQTTMessageInfo, trace.Span] | None] = queue.SimpleQueue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.connect(host, port)
        self.client.loop_start()
        self.waiter = threading.Thread(target=self.wait)
        self.waiter.start()

    def publish(self) -> None:
        with tracer.start_as_current_span("read sensor"):
            self.seq += 1
            reading = {"device": self.name, "seq": self.seq, "celsius": round(random.gauss(21, 2), 1)}
            span = tracer.start_span("send devices/{device}/telemetry", kind=SpanKind.PRODUCER, attributes={
                "messaging.system": "mqtt",
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": self.topic,
                "messaging.destination.template": "devices/{device}/telemetry",
            })  # fmt: skip
            properties = Properties(PacketTypes.PUBLISH)
            # The two lines that put the context on the message:
            context = from_span_context(span.get_span_context())
            properties.UserProperty = inject_user_properties([], context)
            sent = self.client.publish(self.topic, json.dumps(reading), qos=1, properties=properties)
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
            raise SystemExit(f"{self.name}: {self.lost} of {self.seq} readings were not acknowledged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--name", default="sensor-1")
    parser.add_argument("--messages", type=int, default=10, help="readings sent one by one")
    parser.add_argument("--burst", type=int, default=0, help="further readings, sent all at once")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between single readings")
    options = parser.parse_args()
    device = Device(options.name, options.host, options.port)
    for _ in range(options.messages):
        device.publish()
        time.sleep(options.interval)
    for _ in range(options.burst):
        device.publish()
    device.close()
    provider.shutdown()
    print(f"{device.name}: {device.seq} readings sent and acknowledged")


if __name__ == "__main__":
    main()
