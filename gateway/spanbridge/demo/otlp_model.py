"""What an OTLP receiver got, as small plain values (OTLP 1.x protobuf, ``opentelemetry/proto/{trace,metrics}/v1``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")


@dataclass(frozen=True, slots=True)
class SpanLink:
    """A link of a span. ``flags`` are the OTLP span flags (bits 8 and 9: is-remote known, is-remote)."""

    trace_id: str
    span_id: str
    trace_state: str
    flags: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event of a span; ``time_ns`` is Unix time in nanoseconds."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Ids are lower-case hex, ``parent_id`` is "" for a root; times are Unix nanoseconds.

    ``kind`` is ``INTERNAL``, ``SERVER``, ``CLIENT``, ``PRODUCER`` or ``CONSUMER``; ``status`` is ``UNSET``, ``OK`` or
    ``ERROR``.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: tuple[SpanLink, ...]
    events: tuple[SpanEvent, ...]
    status: str
    status_message: str
    resource: dict[str, Any]
    scope: str
    trace_state: str
    flags: int

    @property
    def service(self) -> str:
        """The resource's ``service.name``."""
        return str(self.resource.get("service.name", ""))


@dataclass(frozen=True, slots=True)
class Point:
    """One data point. ``value`` is None for histograms, which fill the last four fields instead."""

    attributes: dict[str, Any]
    start_ns: int
    time_ns: int
    value: float | None = None
    count: int = 0
    sum: float = 0.0
    bounds: tuple[float, ...] = ()
    bucket_counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceivedMetric:
    """One metric of one export. ``kind`` is the OTLP data type: ``sum``, ``gauge``, ``histogram`` and so on."""

    name: str
    unit: str
    description: str
    kind: str
    monotonic: bool
    temporality: str
    points: tuple[Point, ...]
    resource: dict[str, Any]
    scope: str
    received: int = field(default=0, compare=False)

    def point(self, attributes: Mapping[str, Any]) -> Point | None:
        """The first point that has these attributes, perhaps among others."""
        return next((point for point in self.points if attributes.items() <= point.attributes.items()), None)


def decode_spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """All spans of a request, in its order."""
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _span(span, resource, scope_spans.scope.name)


def decode_metrics(request: ExportMetricsServiceRequest, received: int = 0) -> Iterator[ReceivedMetric]:
    """All metrics of a request, in its order; ``received`` numbers the request."""
    for resource_metrics in request.resource_metrics:
        resource = _attributes(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                yield _metric(metric, resource, scope_metrics.scope.name, received)


def _span(span: trace_pb2.Span, resource: dict[str, Any], scope: str) -> Span:
    return Span(
        name=span.name,
        kind=_KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=tuple(
            SpanLink(
                link.trace_id.hex(), link.span_id.hex(), link.trace_state, link.flags, _attributes(link.attributes)
            )
            for link in span.links
        ),
        events=tuple(SpanEvent(e.name, e.time_unix_nano, _attributes(e.attributes)) for e in span.events),
        status=_STATUSES[span.status.code],
        status_message=span.status.message,
        resource=resource,
        scope=scope,
        trace_state=span.trace_state,
        flags=span.flags,
    )


def _metric(metric: metrics_pb2.Metric, resource: dict[str, Any], scope: str, received: int) -> ReceivedMetric:
    kind = metric.WhichOneof("data") or "none"
    data = getattr(metric, kind, None)
    temporality = getattr(data, "aggregation_temporality", 0)
    return ReceivedMetric(
        name=metric.name,
        unit=metric.unit,
        description=metric.description,
        kind=kind,
        monotonic=bool(getattr(data, "is_monotonic", False)),
        temporality=("UNSPECIFIED", "DELTA", "CUMULATIVE")[temporality],
        points=tuple(_point(kind, point) for point in getattr(data, "data_points", ())),
        resource=resource,
        scope=scope,
        received=received,
    )


def _point(kind: str, point: Any) -> Point:
    common = (_attributes(point.attributes), point.start_time_unix_nano, point.time_unix_nano)
    if kind in ("sum", "gauge"):
        return Point(*common, value=getattr(point, point.WhichOneof("value") or "as_int"))
    return Point(
        *common,
        count=point.count,
        sum=point.sum,
        bounds=tuple(getattr(point, "explicit_bounds", ())),
        bucket_counts=tuple(getattr(point, "bucket_counts", ())),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind)


def count_spans(body: bytes) -> int:
    """How many spans an ``ExportTraceServiceRequest`` holds, without decoding them.

    :raises ValueError: the bytes are no such message.
    """
    return _count(memoryview(body), (1, 2, 2))


def _count(view: memoryview, path: Sequence[int]) -> int:
    """Count the length-delimited fields at the end of a path of field numbers, skipping everything else."""
    wanted = path[0]
    rest = path[1:]
    found = 0
    at = 0
    end = len(view)
    while at < end:
        tag, at = _varint(view, at)
        wire_type = tag & 7
        if wire_type == 2:
            length, at = _varint(view, at)
            if tag >> 3 == wanted:
                found += _count(view[at : at + length], rest) if rest else 1
            at += length
        elif wire_type == 0:
            _, at = _varint(view, at)
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
    if at != end:
        raise ValueError("the message is cut short")
    return found


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    try:
        byte = view[at]
        at += 1
        if byte < 128:
            return byte, at
        value = byte & 127
        shift = 7
        while byte >= 128:
            byte = view[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
    except IndexError:
        raise ValueError("the message is cut short") from None
    return value, at
