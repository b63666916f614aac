"""An OTLP receiver for tests, the demonstration and the benchmark.

It takes traces, metrics and logs over gRPC and HTTP/protobuf (gzip too) on loopback, keeps what it got and can be told
to misbehave as receivers do (OTLP 1.x, "OTLP/gRPC Response" and "OTLP/HTTP Response"). It runs in threads of its own,
so that it serves synchronous and asynchronous callers alike and a blocked event loop does not block it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanbridge.demo.otlp_behaviour import OK, Behaviour
from spanbridge.demo.otlp_model import (
    Point,
    ReceivedMetric,
    Span,
    SpanEvent,
    SpanLink,
    count_spans,
    decode_metrics,
    decode_spans,
)
from spanbridge.demo.otlp_servers import ReceiverTls, ReceivingServer, serve_grpc, serve_http

__all__ = ["OK", "Behaviour", "OtlpReceiver", "Point", "ReceivedMetric", "ReceiverTls", "Span", "SpanEvent", "SpanLink"]


class OtlpReceiver:
    """Receives OTLP on two free loopback ports between :meth:`start` and :meth:`stop`, or as a context manager.

    ``decode=False`` only counts spans, by a scan that makes no objects: for benchmarks. All methods may be called from
    any thread. ``requests`` holds, per request answered or refused, its signal and its headers (lower-case names).
    """

    def __init__(
        self, *, decode: bool = True, grpc_port: int = 0, http_port: int = 0, tls: ReceiverTls | None = None
    ) -> None:
        self._tls = tls
        self.grpc_port = grpc_port
        self.http_port = http_port
        self.behaviour = OK
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.span_count = 0
        self.log_count = 0
        self.byte_count = 0
        self._decode = decode
        self._traces: list[ExportTraceServiceRequest] = []
        self._metrics: list[tuple[int, ExportMetricsServiceRequest]] = []
        self._spans: list[Span] = []
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._grpc: grpc.Server | None = None
        self._http: ReceivingServer | None = None

    # Life

    def start(self) -> Self:
        """Listen. The ports stay the same when started again after :meth:`stop`.

        :raises OSError: a port that was asked for is taken.
        """
        self._released.clear()
        self._http = serve_http(self.take, self.http_port, self._tls)
        self.http_port = self._http.server_address[1]
        try:
            self._grpc, self.grpc_port = serve_grpc(self.take, self.grpc_port, self._tls)
        except OSError:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop listening and end what hangs. What was received is kept. Idempotent."""
        self._released.set()
        if self._grpc is not None:
            self._grpc.stop(grace=0).wait(5)
            self._grpc = None
        if self._http is not None:
            self._http.close()
            self._http = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _scheme(self) -> str:
        return "http" if self._tls is None else "https"

    @property
    def grpc_endpoint(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT`` with protocol ``grpc``."""
        return f"{self._scheme}://127.0.0.1:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT`` with protocol ``http/protobuf``."""
        return f"{self._scheme}://127.0.0.1:{self.http_port}"

    def environment(self, protocol: str = "grpc") -> dict[str, str]:
        """The OTEL_* variables that send a process's telemetry here. ``protocol``: ``grpc`` or ``http/protobuf``."""
        endpoint = self.grpc_endpoint if protocol == "grpc" else self.http_endpoint
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}

    # What was received

    @property
    def spans(self) -> list[Span]:
        """All spans so far, in the order received. Empty with ``decode=False``."""
        with self._changed:
            for request in self._traces:
                self._spans.extend(decode_spans(request))
            self._traces.clear()
            return list(self._spans)

    @property
    def metrics(self) -> list[ReceivedMetric]:
        """All metrics of all exports so far; ``ReceivedMetric.received`` numbers the export."""
        with self._changed:
            requests = list(self._metrics)
        return [metric for number, request in requests for metric in decode_metrics(request, number)]

    def metric(self, name: str) -> ReceivedMetric | None:
        """The newest export of a metric."""
        return next((metric for metric in reversed(self.metrics) if metric.name == name), None)

    def clear(self) -> None:
        """Forget what was received."""
        with self._changed:
            self._traces.clear()
            self._spans.clear()
            self._metrics.clear()
            self.requests.clear()
            self.span_count = self.log_count = self.byte_count = 0

    def wait(self, predicate: Callable[[OtlpReceiver], bool], timeout: float = 10.0) -> None:
        """Block until the predicate holds; it is asked after every request. ``timeout`` is in seconds.

        :raises TimeoutError: it did not hold in time; the message says what was received.
        """
        deadline = time.monotonic() + timeout
        while not predicate(self):
            with self._changed:
                self._changed.wait(min(0.05, max(0.0, deadline - time.monotonic())))
            if time.monotonic() >= deadline and not predicate(self):
                raise TimeoutError(
                    f"not received within {timeout} s; so far {self.span_count} spans, {len(self._metrics)} metric "
                    f"exports, {self.log_count} log records in {len(self.requests)} requests"
                )

    async def wait_for(self, predicate: Callable[[OtlpReceiver], bool], timeout: float = 10.0) -> None:
        """As :meth:`wait`, without blocking the event loop."""
        deadline = time.monotonic() + timeout
        while not predicate(self):
            if time.monotonic() >= deadline:
                self.wait(predicate, 0)
            await asyncio.sleep(0.01)

    def wait_spans(self, count: int, timeout: float = 10.0) -> list[Span]:
        """Block until at least ``count`` spans are here, and return all.

        :raises TimeoutError: they did not come in time.
        """
        self.wait(lambda receiver: receiver.span_count >= count, timeout)
        return self.spans

    # Serving

    def take(self, signal: str, body: bytes, headers: dict[str, str]) -> Behaviour:
        """Keep one request, unless told to misbehave, and return how to answer it. For the two servers.

        :raises ValueError: the body is no OTLP request.
        """
        with self._changed:
            self.requests.append((signal, headers))
            behaviour = self.behaviour
            self.behaviour = behaviour.after_one()
            self._changed.notify_all()
        if behaviour.hang:
            self._released.wait()
            return Behaviour.refuse("UNAVAILABLE", 503)
        if behaviour.accepts:
            self._keep(signal, body)
        return behaviour

    def release(self) -> None:
        """Behave well again, and end the requests that hang (they are not kept)."""
        self.behaviour = OK
        self._released.set()
        self._released = threading.Event()

    def _keep(self, signal: str, body: bytes) -> None:
        parsed = _parse(signal, body) if self._decode or signal != "traces" else None
        spans = count_spans(body) if signal == "traces" else 0
        with self._changed:
            self.byte_count += len(body)
            self.span_count += spans
            if isinstance(parsed, ExportTraceServiceRequest):
                self._traces.append(parsed)
            elif isinstance(parsed, ExportMetricsServiceRequest):
                self._metrics.append((len(self._metrics), parsed))
            elif isinstance(parsed, ExportLogsServiceRequest):
                self.log_count += sum(len(s.log_records) for r in parsed.resource_logs for s in r.scope_logs)
            self._changed.notify_all()


def _parse(signal: str, body: bytes) -> Any:
    types: dict[str, Any] = {
        "traces": ExportTraceServiceRequest,
        "metrics": ExportMetricsServiceRequest,
        "logs": ExportLogsServiceRequest,
    }
    try:
        return types[signal].FromString(body)
    except DecodeError as error:
        raise ValueError(f"not an OTLP {signal} request") from error
