"""The OTLP receiver against the SDK's own exporters."""

from __future__ import annotations

import gzip
import logging
import urllib.error
import urllib.request
import warnings
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from spanbridge.demo.otlp import Behaviour, OtlpReceiver
from spanbridge.demo.otlp_model import count_spans

RESOURCE = Resource({"service.name": "sender", "list": ("a", "b")})


def span_exporter(protocol: str, receiver: OtlpReceiver) -> Any:
    if protocol == "grpc":
        return GrpcSpans(endpoint=receiver.grpc_endpoint)
    return HttpSpans(endpoint=f"{receiver.http_endpoint}/v1/traces", compression=Compression.Gzip)


def send(exporter: Any, count: int = 1) -> None:
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("scope")
    other = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
    for _ in range(count):
        span = tracer.start_span("op", kind=SpanKind.CLIENT, links=[Link(other, {"l": 1})], attributes={"n": 1.5})
        span.add_event("e", {"k": True})
        span.set_status(Status(StatusCode.ERROR, "why"))
        span.end()
    provider.shutdown()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_spans_of_the_sdk(protocol: str) -> None:
    with OtlpReceiver() as receiver:
        send(span_exporter(protocol, receiver), 3)
        spans = receiver.wait_spans(3)
    assert len(spans) == receiver.span_count == 3
    span = spans[0]
    assert (span.name, span.kind, span.status, span.status_message) == ("op", "CLIENT", "ERROR", "why")
    assert (span.service, span.scope, span.parent_id) == ("sender", "scope", "")
    assert span.resource["list"] == ["a", "b"]
    assert span.attributes == {"n": 1.5}
    assert (span.links[0].trace_id, span.links[0].span_id, span.links[0].attributes) == (
        "0" * 31 + "1",
        "0" * 15 + "2",
        {"l": 1},
    )
    assert (span.events[0].name, span.events[0].attributes) == ("e", {"k": True})
    assert 0 < span.start_ns <= span.end_ns


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_metrics_of_the_sdk(protocol: str) -> None:
    with OtlpReceiver() as receiver, warnings.catch_warnings():
        exporter: Any = (
            GrpcMetrics(endpoint=receiver.grpc_endpoint)
            if protocol == "grpc"
            else HttpMetrics(endpoint=f"{receiver.http_endpoint}/v1/metrics")
        )
        provider = MeterProvider([PeriodicExportingMetricReader(exporter, 60_000)], RESOURCE, shutdown_on_exit=False)
        meter = provider.get_meter("scope")
        meter.create_counter("c.a", unit="{x}").add(2, {"http.route": "/"})
        meter.create_histogram("h", unit="s", explicit_bucket_boundaries_advisory=[1, 2]).record(1.5)
        provider.shutdown()
        receiver.wait(lambda r: r.metric("h") is not None)
    counter, histogram = receiver.metric("c.a"), receiver.metric("h")
    assert counter is not None
    assert histogram is not None
    point = counter.point({"http.route": "/"})
    assert point is not None
    assert (counter.unit, counter.kind, counter.monotonic, point.value) == ("{x}", "sum", True, 2)
    assert (histogram.points[0].bucket_counts, histogram.points[0].sum) == ((0, 1, 0), 1.5)


def test_counting_only_counts() -> None:
    with OtlpReceiver(decode=False) as receiver:
        send(span_exporter("grpc", receiver), 1000)
        receiver.wait(lambda r: r.span_count == 1000)
        assert receiver.spans == []
        assert receiver.byte_count > 10_000


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05\x12", b"\xff\xff", b"\x0b", b"\x0a\x02\x12\x7f"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut short|wire type"):
        count_spans(body)
    with OtlpReceiver(decode=False) as receiver:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(receiver, body)
        with caught.value as answer:
            assert answer.code == 400


def post(receiver: OtlpReceiver, body: bytes, path: str = "/v1/traces", **headers: str) -> int:
    request = urllib.request.Request(receiver.http_endpoint + path, body, headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return int(answer.status)


def test_http_takes_gzip_and_knows_its_paths() -> None:
    with OtlpReceiver() as receiver:
        assert post(receiver, gzip.compress(b""), **{"Content-Encoding": "gzip"}) == 200
        assert post(receiver, b"", "/v1/logs") == 200
        for path, body in (("/v1/nothing", b""), ("/v1/traces", b"no gzip")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                post(receiver, body, path, **{"Content-Encoding": "gzip"})
            caught.value.close()
        assert [signal for signal, _ in receiver.requests] == ["traces", "logs"]


def test_refusals_reach_the_sdk(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with OtlpReceiver() as receiver:
        exporter = GrpcSpans(endpoint=receiver.grpc_endpoint)
        receiver.behaviour = Behaviour.refuse("PERMISSION_DENIED", 403)
        assert exporter.export(()) is SpanExportResult.FAILURE
        receiver.release()
        assert exporter.export(()) is SpanExportResult.SUCCESS
        exporter.shutdown()


def test_it_comes_back_on_the_same_ports_with_what_it_had() -> None:
    receiver = OtlpReceiver().start()
    send(span_exporter("http", receiver))
    ports = (receiver.grpc_port, receiver.http_port)
    receiver.stop()
    receiver.stop()
    with receiver:
        assert ports == (receiver.grpc_port, receiver.http_port)
        send(span_exporter("grpc", receiver))
        assert len(receiver.wait_spans(2)) == 2
        receiver.clear()
        assert receiver.spans == []


def test_a_taken_port_is_an_error() -> None:
    with OtlpReceiver() as receiver:
        with pytest.raises(OSError, match=r"in use"):
            OtlpReceiver(http_port=receiver.http_port).start()
        with pytest.raises(OSError, match=r"cannot listen"):
            OtlpReceiver(grpc_port=receiver.grpc_port).start()


def test_waiting_in_vain_says_what_was_received() -> None:
    with OtlpReceiver() as receiver, pytest.raises(TimeoutError, match="0 spans"):
        receiver.wait_spans(1, timeout=0.05)
