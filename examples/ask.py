"""Asks devices for their state, from RocketMQ. A question, what the device does about it and its answer are one trace.

    OTEL_SERVICE_NAME=backend OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 \\
        python ask.py --endpoints 127.0.0.1:8081 --device sensor-1 --meter meter-1

A question is a message of the topic ``commands`` (``meter-commands``) whose key is the device; the gateway's downlink
publishes it to ``devices/sensor-1/commands``. The answer comes up by a route to the topic ``answers``. It is printed on
a line of its own, with the number of its question.
"""

import argparse
import base64
import json
import threading
import time
import uuid

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
)

from spanbridge_context.otel import SpanbridgePropagator

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("ask")
propagator = SpanbridgePropagator()
asked: dict[str, int] = {}  # number of each question that waits for its answer
all_answered = threading.Condition()


def about(operation: str, topic: str) -> dict[str, str]:
    """The attributes of a span that sends or processes a message."""
    return {
        "messaging.system": "rocketmq",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def ask(producer: Producer, topic: str, device: str, number: int, response_topic: str | None) -> None:
    """Send one question; its answer arrives at the listener below."""
    correlation = uuid.uuid4().hex
    asked[correlation] = number
    message = Message()
    message.topic = topic
    message.keys = device
    message.body = json.dumps({"ask": "state", "id": correlation}).encode()
    if response_topic is not None:  # MQTT 5: the gateway makes the PUBLISH's own fields of these
        message.add_property("mqtt.response-topic", response_topic)
        message.add_property("mqtt.correlation-data", base64.b64encode(correlation.encode()).decode())
    with (
        tracer.start_as_current_span("ask for state"),
        tracer.start_as_current_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=about("send", topic)),
    ):
        # The lines that put the context on the message:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        for name, value in carrier.items():
            message.add_property(name, value)
        producer.send(message)


class Answers(MessageListener):
    """Called for each answer, in a thread of the client."""

    def consume(self, message: Message) -> ConsumeResult:
        # The line that takes the context off the message:
        parent = propagator.extract(message.properties)
        what = about("process", message.topic)
        with tracer.start_as_current_span(f"process {message.topic}", parent, SpanKind.CONSUMER, what):
            answer = json.loads(message.body)
            given = message.properties.get("mqtt.correlation-data")
            correlation = answer.pop("id", "") if given is None else base64.b64decode(given).decode()
            with all_answered:
                number = asked.pop(correlation, None)
                if number is not None:  # else another's question, or an answer that came twice
                    print(json.dumps({"question": number, **answer}) + "\n", end="", flush=True)
                all_answered.notify_all()
        return ConsumeResult.SUCCESS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", default="127.0.0.1:8081")
    parser.add_argument("--group", default="demo-answers")
    parser.add_argument("--device", help="name of a device that speaks MQTT 5")
    parser.add_argument("--meter", help="name of a device that speaks MQTT 3.1.1")
    parser.add_argument("--count", type=int, default=1, help="questions to each")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between questions")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for the last answers")
    options = parser.parse_args()
    configuration = ClientConfiguration(options.endpoints, Credentials())
    consumer = PushConsumer(configuration, options.group, Answers(), {"answers": FilterExpression()})
    consumer.startup()
    producer = Producer(configuration, ("commands", "meter-commands"))
    producer.startup()
    for number in range(1, options.count + 1):
        if options.device:
            ask(producer, "commands", options.device, number, f"devices/{options.device}/answers")
        if options.meter:
            ask(producer, "meter-commands", options.meter, number, None)
        time.sleep(options.interval)
    with all_answered:
        complete = all_answered.wait_for(lambda: not asked, options.timeout)
    producer.shutdown()
    consumer.shutdown()
    provider.shutdown()
    if not complete:
        raise SystemExit(f"{len(asked)} questions were not answered")


if __name__ == "__main__":
    main()
