"""The tracer and the messaging instruments of one instrumentor."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import TracerProvider, get_tracer
from opentelemetry.util.types import AttributeValue

from . import semconv

Attributes = Mapping[str, AttributeValue]


class Telemetry:
    """Tracer and the four ``messaging.*`` instruments, made once for each pair of providers.

    ``attributes`` of the recording methods are metric labels: the caller keeps them few and of low cardinality, and
    adds ``error.type`` to them where something failed. Durations are in seconds.
    ``context`` is the span's, where that is not current: exemplars point to it.
    """

    __slots__ = ("_consumed", "_operations", "_processes", "_sent", "tracer")

    def __init__(
        self,
        scope: str,
        version: str,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self.tracer = get_tracer(scope, version, tracer_provider, schema_url=semconv.SCHEMA_URL)
        meter = get_meter(scope, version, meter_provider, schema_url=semconv.SCHEMA_URL)
        self._operations = meter.create_histogram(
            semconv.METRIC_OPERATION_DURATION,
            unit="s",
            description="Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
        )
        self._processes = meter.create_histogram(
            semconv.METRIC_PROCESS_DURATION,
            unit="s",
            description="Duration of processing operation.",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
        )
        self._sent = meter.create_counter(
            semconv.METRIC_SENT,
            unit="{message}",
            description="Number of messages producer attempted to send to the broker.",
        )
        self._consumed = meter.create_counter(
            semconv.METRIC_CONSUMED,
            unit="{message}",
            description="Number of messages that were delivered to the application.",
        )

    def sent(
        self, seconds: float, attributes: Attributes, *, messages: int = 1, context: Context | None = None
    ) -> None:
        """One send operation ended: its duration, and the messages that it attempted to send."""
        self._operations.record(seconds, attributes, context)
        self._sent.add(messages, attributes, context)

    def operated(self, seconds: float, attributes: Attributes, *, context: Context | None = None) -> None:
        """One operation that moves no message to count (a settlement, an empty receive) ended."""
        self._operations.record(seconds, attributes, context)

    def consumed(self, messages: int, attributes: Attributes) -> None:
        """Messages were handed to the application: counted once a delivery, at ``receive`` or at ``process``."""
        self._consumed.add(messages, attributes)

    def processed(self, seconds: float, attributes: Attributes) -> None:
        """One ``process`` operation ended."""
        self._processes.record(seconds, attributes)
