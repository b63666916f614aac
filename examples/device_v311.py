"""An MQTT v3.1.1 device. That version has no user properties, so the context travels as a suffix of the topic.

The gateway takes the suffix off; its route needs ``carriers = ["topic-suffix"]``.

    OTEL_SERVICE_NAME=meter-v311 OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 \\
        python device_v311.py --host 127.0.0.1 --port 1883 --messages 5
"""

import argparse
import json
import random
import time

import paho.mqtt.client as mqtt
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from spanbridge_context import inject_topic
from spanbridge_context.otel import from_span_context

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("device-v311")


def publish(client: mqtt.Client, name: str, seq: int) -> None:
    """Send one reading and wait until the broker has acknowledged it."""
    topic = f"meters/{name}/reading"
    with tracer.start_as_current_span("read meter"):
        reading = {"device": name, "seq": seq, "kwh": round(1000 + seq * 0.1 + random.random() / 10, 3)}
        with tracer.start_as_current_span("send meters/{meter}/reading", kind=SpanKind.PRODUCER, attributes={
            "messaging.system": "mqtt",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
            "messaging.destination.template": "meters/{meter}/reading",
        }) as span:  # fmt: skip
            # The two lines that put the context on the message:
            context = from_span_context(span.get_span_context())
            sent = client.publish(inject_topic(topic, context), json.dumps(reading), qos=1)
            sent.wait_for_publish(timeout=10)
            if not sent.is_published():
                raise SystemExit(f"{name}: reading {seq} was not acknowledged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--name", default="meter-1")
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between readings")
    options = parser.parse_args()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.connect(options.host, options.port)
    client.loop_start()
    for seq in range(1, options.messages + 1):
        publish(client, options.name, seq)
        time.sleep(options.interval)
    client.disconnect()
    client.loop_stop()
    provider.shutdown()
    print(f"{options.name}: {options.messages} readings sent and acknowledged")


if __name__ == "__main__":
    main()
