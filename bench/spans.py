"""CPU time of the two spans of a message: ours against the OpenTelemetry SDK and its OTLP encoder.

Run ``python bench/spans.py``; it takes a few seconds and prints microseconds per message.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import DEFAULT_OFF, DEFAULT_ON, ParentBasedTraceIdRatio
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from spanbridge.telemetry.route import SCHEMA_URL
from spanbridge.telemetry.tracer import Tracer
from spanbridge.telemetry.wire import RequestFrame

from spanbridge.core.message import Publish
from spanbridge.core.policy import ContextPolicy
from spanbridge.telemetry.otlp.buffer import SpanBuffer
from spanbridge.telemetry.peer import Peer
from spanbridge_context import TraceContext

MESSAGES = 40_000
BATCH = 64
SAMPLED = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
UNSAMPLED = SAMPLED.replace(flags=0)
PUBLISHES = [Publish(f"plant/{n}/temperature", b"x" * 128, received_ns=time.time_ns()) for n in range(100)]
PEER = Peer(address="127.0.0.1", port=1883, client_id="spanbridge-1")
FRAME = RequestFrame({"service.name": "bench"}, "", "spanbridge", "0", SCHEMA_URL)


def ours(context: TraceContext | None, sampler: Any = DEFAULT_ON) -> Callable[[], None]:
    """Begin, send and settle messages in batches, and wrap them into requests."""
    buffer = SpanBuffer(1 << 30, batch_spans=2048, batch_bytes=1 << 20)
    tracer = Tracer(buffer, sampler=sampler, source=PEER, target=PEER)
    route = tracer.route(filter="plant/+/temperature", topic="plant", policy=ContextPolicy.CONTINUE, trust=True)

    def run() -> None:
        begin = route.begin
        for at in range(0, MESSAGES, BATCH):
            traces = [begin(PUBLISHES[n % 100], context) for n in range(at, at + BATCH)]
            now = time.time_ns()
            tracer.sent(traces, now, now, "plant")
            tracer.settled(traces, now)
        while buffer.spans:
            FRAME.wrap(buffer.take()[0])

    return run


class _Encode(SpanExporter):
    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


def sdk(context: TraceContext) -> Callable[[], None]:
    """The same two spans a message with the SDK, encoded by its exporter's encoder."""
    provider = TracerProvider(sampler=DEFAULT_ON, resource=Resource({"service.name": "bench"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(_Encode()))
    tracer = provider.get_tracer("spanbridge", "0", schema_url=SCHEMA_URL)
    fixed = {"messaging.operation.type": "send", "messaging.client.id": "c", "server.address": "a", "server.port": 1}
    parent = SpanContext(int(context.trace_id, 16), int(context.span_id, 16), True, TraceFlags(context.flags))

    def run() -> None:
        for n in range(MESSAGES // 20):
            topic = {"messaging.destination.name": PUBLISHES[n % 100].topic, "messaging.message.body.size": 128}
            device = set_span_in_context(NonRecordingSpan(parent), Context())
            process = tracer.start_span(
                "process plant/+/temperature", device, SpanKind.CONSUMER, {**fixed, **topic, "messaging.system": "mqtt"}
            )
            here = set_span_in_context(process, Context())
            send = tracer.start_span(
                "send plant", here, SpanKind.PRODUCER, {**fixed, **topic, "messaging.system": "rocketmq"}
            )
            send.end()
            process.end()

    return run


def cost(run: Callable[[], None], messages: int = MESSAGES) -> float:
    """CPU microseconds per message, the best of three runs."""
    best = float("inf")
    for _ in range(3):
        gc.collect()
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return round(best / messages * 1e6, 3)


def main() -> None:
    """Print a table and, last, one JSON object."""
    result = {
        "ours_recorded": cost(ours(SAMPLED)),
        "ours_new_root": cost(ours(None)),
        "ours_unsampled": cost(ours(UNSAMPLED)),
        "ours_ratio_10": cost(ours(None, ParentBasedTraceIdRatio(0.1))),
        "ours_always_off": cost(ours(None, DEFAULT_OFF)),
        "sdk_recorded": cost(sdk(SAMPLED), MESSAGES // 20),
        "sdk_unsampled": cost(sdk(UNSAMPLED), MESSAGES // 20),
    }
    for name, value in result.items():
        print(f"{name:<18}{value:>10.2f} µs a message")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
