"""A RocketMQ consumer on the official Python client. What it does with a message is part of the device's trace.

    OTEL_SERVICE_NAME=consumer OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 \\
        python consumer.py --endpoints 127.0.0.1:8081 --topic telemetry

It prints each message's body on a line of its own.
"""

import argparse
import json
import signal
import threading
import time

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
    PushConsumer,
)

from spanbridge_context.otel import SpanbridgePropagator

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("consumer")
propagator = SpanbridgePropagator()


class Handler(MessageListener):
    """Called for each message, in a thread of the client."""

    def __init__(self, group: str) -> None:
        self.group = group

    def consume(self, message: Message) -> ConsumeResult:
        # The line that takes the context off the message:
        parent = propagator.extract(message.properties)
        with tracer.start_as_current_span(f"process {message.topic}", parent, SpanKind.CONSUMER, {
            "messaging.system": "rocketmq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": message.topic,
            "messaging.consumer.group.name": self.group,
            "messaging.message.id": message.message_id,
        }):  # fmt: skip
            store(message.body)
        return ConsumeResult.SUCCESS


def store(body: bytes) -> None:
    """The work: a child span without any further line, since the context is current."""
    with tracer.start_as_current_span("store reading"):
        time.sleep(0.002)
        print(json.dumps(json.loads(body)) + "\n", end="", flush=True)  # one write: the client has several threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", default="127.0.0.1:8081")
    parser.add_argument("--topic", action="append", required=True, help="repeatable")
    parser.add_argument("--group", default="demo-consumers")
    options = parser.parse_args()
    consumer = PushConsumer(
        ClientConfiguration(options.endpoints, Credentials()),
        options.group,
        Handler(options.group),
        {topic: FilterExpression() for topic in options.topic},
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    consumer.startup()
    print("ready", flush=True)
    ended.wait()
    consumer.shutdown()
    provider.shutdown()


if __name__ == "__main__":
    main()
