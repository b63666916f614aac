"""How an OTLP receiver answers when it is told not to behave well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What to do with requests: refuse with both a gRPC code and an HTTP status, hang, or accept in part.

    ``times`` requests are treated so, all when None. ``retry_after`` is in seconds. ``rejected`` is the number that a
    partial success claims to have rejected.
    """

    grpc_code: str | None = None
    http_status: int = 200
    message: str = ""
    retry_after: float | None = None
    hang: bool = False
    rejected: int = 0
    times: int | None = None

    @classmethod
    def refuse(
        cls, grpc_code: str, http_status: int, *, retry_after: float | None = None, times: int | None = None
    ) -> Behaviour:
        """Refuse, e.g. ``refuse("RESOURCE_EXHAUSTED", 429, retry_after=1)``."""
        return cls(
            grpc_code=grpc_code, http_status=http_status, message="told to refuse", retry_after=retry_after, times=times
        )

    @property
    def accepts(self) -> bool:
        """Whether the request is kept."""
        return self.grpc_code is None and self.http_status == 200 and not self.hang

    def after_one(self) -> Behaviour:
        """The behaviour for the next request."""
        if self.times is None:
            return self
        return replace(self, times=self.times - 1) if self.times > 1 else OK

    def status(self, code: int) -> bytes:
        """The ``google.rpc.Status`` that goes with a refusal: a gRPC trailer, or the body of an HTTP response."""
        found = Status(code=code, message=self.message)
        if self.retry_after is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            found.details.add().Pack(RetryInfo(retry_delay=delay))
        return bytes(found.SerializeToString())

    def answer(self, signal: str) -> bytes:
        """The answer to a request that was kept: empty, or a partial success."""
        if not (self.rejected or self.message):
            return b""
        message = self.message or "rejected"
        if signal == "metrics":
            metrics: Any = ExportMetricsServiceResponse()
            metrics.partial_success.rejected_data_points = self.rejected
            metrics.partial_success.error_message = message
            return bytes(metrics.SerializeToString())
        traces: Any = ExportTraceServiceResponse()
        traces.partial_success.rejected_spans = self.rejected
        traces.partial_success.error_message = message
        return bytes(traces.SerializeToString())


OK = Behaviour()
