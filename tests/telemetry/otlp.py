"""Our tracer and the SDK side by side, compared as parsed protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler

from spanbridge.telemetry import Hop, Peer, Tracer
from spanbridge.telemetry.spans.hop import SCHEMA_URL
from spanbridge.telemetry.spans.wire import RequestFrame

RESOURCE = Resource(
    {"service.name": "gw", "deployment": "t\u00e9st", "n": 3, "on": True, "ratio": 0.5, "tags": ("a", "b")},
    "https://example.org/schema",
)
SOURCE = Peer(address="broker.example", port=1883, client_id="gw-1")
TARGET = Peer(address="rmq.example", port=8081, client_id="gw-1@2", namespace="ns")
RECEIVED = Hop(operation="process", system="mqtt", destination="plant/1/\u00fc", template="plant/+/#", peer=SOURCE)
REQUESTED = Hop(operation="send", system="rocketmq", destination="orders", peer=TARGET)
SENT = replace(
    REQUESTED,
    extra={
        "messaging.rocketmq.message.tag": "t",
        "messaging.rocketmq.message.keys": ("k1", "k2"),
        "messaging.rocketmq.message.group": "device-7",
        "messaging.rocketmq.message.delivery_timestamp": 1795430589684,
    },
)


class Collected:
    """A sink that keeps framed spans and reads them back."""

    def __init__(self) -> None:
        self.framed: list[bytes] = []

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        self.framed.extend(b"".join(pieces[at : at + each]) for at in range(0, len(pieces), each))

    def request(self) -> ExportTraceServiceRequest:
        frame = RequestFrame(dict(RESOURCE.attributes), RESOURCE.schema_url, "spanbridge", "1.2", SCHEMA_URL)
        return ExportTraceServiceRequest.FromString(b"".join(frame.wrap(self.framed)))

    def spans(self) -> list[Span]:
        return list(self.request().resource_spans[0].scope_spans[0].spans)

    def named(self, start: str) -> Span:
        (found,) = [span for span in self.spans() if span.name.startswith(start)]
        return found


def tracer(sampler: Sampler = DEFAULT_ON, **options: Any) -> tuple[Tracer, Collected]:
    sink = Collected()
    return Tracer(sink, sampler=sampler, **options), sink


class ScriptedIds(IdGenerator):
    """Gives the SDK the ids that ours made."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        return True


class _Keep(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


class Reference:
    """The SDK with our resource and scope, making spans with ids that are given."""

    def __init__(self, sampler: Sampler = DEFAULT_ON, limits: SpanLimits | None = None) -> None:
        self._ids = ScriptedIds()
        self._kept = _Keep()
        provider = TracerProvider(
            sampler=sampler, resource=RESOURCE, id_generator=self._ids, shutdown_on_exit=False, span_limits=limits
        )
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self._tracer = provider.get_tracer("spanbridge", "1.2", schema_url=SCHEMA_URL)

    def start(self, like: Span, name: str, **options: Any) -> Any:
        self._ids.trace_id = int.from_bytes(like.trace_id)
        self._ids.span_id = int.from_bytes(like.span_id)
        return self._tracer.start_span(name, start_time=like.start_time_unix_nano, **options)

    def request(self) -> ExportTraceServiceRequest:
        return encode_spans(self._kept.spans)


def comparable(request: ExportTraceServiceRequest) -> Any:
    """Everything in a request, set or not, with attributes and spans in a fixed order."""
    found = MessageToDict(request, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for resource_spans in found["resource_spans"]:
        resource_spans["resource"]["attributes"].sort(key=_key)
        for scope_spans in resource_spans["scope_spans"]:
            scope_spans["spans"].sort(key=lambda span: span["span_id"])
            for span in scope_spans["spans"]:
                span["attributes"].sort(key=_key)
    return found


def _key(attribute: dict[str, Any]) -> str:
    return str(attribute["key"])
