"""The SDK's part: the spans and metrics that the instrumentors make of one message, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge_instrumentation._shared import semconv

Attributes = Mapping[str, Any]
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of call. ``sdk(floor, metrics)`` is the plain call with the SDK's part around it."""

    name: str
    instrumentor: Any
    plain: Callable[[], Any]
    instrumented: Callable[[], Any]
    sdk: Callable[[Floor, bool], Any]
    messages: int = 1


class Floor:
    """A tracer and the histograms, used without any more ado. The instrumentors keep their counters themselves."""

    def __init__(self, tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
        self.tracer = tracer_provider.get_tracer("floor", "0", semconv.SCHEMA_URL)
        meter = meter_provider.get_meter("floor")
        buckets = semconv.DURATION_BUCKETS
        self._operations = meter.create_histogram("operations", "s", explicit_bucket_boundaries_advisory=buckets)
        self._processes = meter.create_histogram("processes", "s", explicit_bucket_boundaries_advisory=buckets)
        self._delays = meter.create_histogram("delays", "s", explicit_bucket_boundaries_advisory=semconv.DELAY_BUCKETS)

    def send(
        self, name: str, attributes: Attributes, labels: Attributes, call: Callable[[], Any], metrics: bool, **late: Any
    ) -> None:
        """A ``send`` span around ``call``, with its context written."""
        started = perf_counter()
        span = self.tracer.start_span(name, None, SpanKind.PRODUCER, attributes)
        context = set_span_in_context(span, Context())
        _PROPAGATOR.inject({}, context)
        call()
        if late and span.is_recording():
            span.set_attributes(late)
        if metrics:
            self._operations.record(perf_counter() - started, labels, context)
        span.end()

    def process(
        self,
        name: str,
        attributes: Attributes,
        labels: Attributes,
        carrier: Mapping[str, str],
        call: Callable[[], Any],
        metrics: bool,
        *,
        link: Attributes | None = None,
        more: Sequence[Link] = (),
        delay: float | None = None,
        delay_labels: Attributes | None = None,
    ) -> None:
        """A ``process`` span around ``call``, child of the context that is read, which it links to."""
        started = perf_counter()
        parent = _PROPAGATOR.extract(carrier, Context())
        links = [Link(get_current_span(parent).get_span_context(), link), *more]
        span = self.tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, links)
        token = attach(set_span_in_context(span, parent))
        if metrics and delay is not None:
            self._delays.record(delay, delay_labels)
        call()
        if metrics:
            self._processes.record(perf_counter() - started, labels)
        detach(token)
        span.end()

    def receive(
        self, name: str, attributes: Attributes, labels: Attributes, carriers: Sequence[Attributes],
        link: Attributes, metrics: bool,
    ) -> Span:  # fmt: skip
        """A ``receive`` span with a link to each context that is read."""
        links = [
            Link(get_current_span(_PROPAGATOR.extract(carrier, Context())).get_span_context(), link)
            for carrier in carriers
        ]
        span = self.tracer.start_span(name, None, SpanKind.CLIENT, attributes, links)
        if metrics:
            self._operations.record(0.001, labels, set_span_in_context(span, Context()))
        span.end()
        return span
