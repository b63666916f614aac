"""Overhead of the paho instrumentation per message: CPU time of publishing and of being called back.

The client writes to a socket that takes everything, so that nothing but the client and the instrumentation is measured;
plain and instrumented take turns in the same run. The SDK's cost is part of it: spans, metrics, and, for the sampled
mode, the batch processor's queue; exporting is not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge_context import TraceContext
from spanbridge_instrumentation.paho import PahoInstrumentor

_MESSAGES = 3000
_ROUNDS = 5
_PAYLOAD = b"x" * 128
_TOPIC = "devices/d17/telemetry"


class _Sink:
    """A socket that takes everything at once."""

    def send(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None:
        pass

    def fileno(self) -> int:
        return -1


class _Discard(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def measure(_stack: Any = None) -> dict[str, Any]:
    """``{"publish": {...}, "process": {...}}``, each with µs of CPU per message and the two overheads."""
    sampled_away = {"publish": _publish, "process": lambda: _process(sampled=False)}
    sampled = {"publish": _publish, "process": lambda: _process(sampled=True)}
    results = {}
    for name in ("publish", "process"):
        plain: list[float] = []
        unsampled: list[float] = []
        full: list[float] = []
        for _ in range(_ROUNDS):
            plain.append(sampled_away[name]())
            unsampled.append(_instrumented(ParentBased(ALWAYS_OFF), sampled_away[name]))
            full.append(_instrumented(ParentBased(ALWAYS_ON), sampled[name]))
        base = statistics.median(plain)
        results[name] = {
            "plain_us": round(base, 2),
            "unsampled_us": round(statistics.median(unsampled), 2),
            "sampled_us": round(statistics.median(full), 2),
            "overhead_unsampled_us": round(statistics.median(unsampled) - base, 2),
            "overhead_sampled_us": round(statistics.median(full) - base, 2),
        }
    return results


def _instrumented(sampler: Sampler, run: Callable[[], float]) -> float:
    tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(_Discard()))
    meter_provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    PahoInstrumentor().instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
    try:
        return run()
    finally:
        PahoInstrumentor().uninstrument()
        tracer_provider.shutdown()
        meter_provider.shutdown()


def _client() -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="bench", protocol=mqtt.MQTTv5)
    client._sock = _Sink()  # type: ignore[assignment]
    return client


def _publish() -> float:
    publish = _client().publish
    return _timed(lambda: publish(_TOPIC, _PAYLOAD, 0))


def _process(*, sampled: bool) -> float:
    client = _client()
    client.on_message = lambda *_: None
    message = mqtt.MQTTMessage(1, _TOPIC.encode())
    message.payload = _PAYLOAD
    message.properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    message.properties.UserProperty = ("tp", TraceContext.new(sampled).compact)
    deliver = client._handle_on_message
    return _timed(lambda: deliver(message))


def _timed(call: Callable[[], Any]) -> float:
    for _ in range(_MESSAGES // 10):
        call()
    started = time.process_time()
    for _ in range(_MESSAGES):
        call()
    return (time.process_time() - started) / _MESSAGES * 1e6
