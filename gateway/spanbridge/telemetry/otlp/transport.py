"""Getting encoded requests to an OTLP receiver: what every transport promises, and which one to use."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spanbridge.telemetry.env import OtlpSettings, Signal, TelemetryConfigError
from spanbridge.telemetry.log.writer import write_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a request.

    ``reason`` is "" when it was taken, else a short word for metrics; ``detail`` is for the log, without secrets.
    ``retry`` says whether the protocol allows another attempt, ``retry_after`` (seconds) when the receiver wants it.
    ``rejected`` spans or data points were refused out of a request that was taken otherwise.
    """

    reason: str = ""
    detail: str = ""
    retry: bool = False
    retry_after: float | None = None
    rejected: int = 0


TAKEN = Outcome()
_CONSOLE_BYTES = 16 * 1024 * 1024
"""What may wait for whoever reads standard output."""


class Transport(Protocol):
    """Sends serialised ``Export...ServiceRequest`` messages of one signal."""

    async def send(self, body: Sequence[bytes], timeout: float) -> Outcome:
        """Send one request, whose body comes in pieces: a joined one would be another copy of a megabyte.

        ``timeout`` is in seconds. Raises nothing but ``CancelledError``.
        """

    async def close(self) -> None:
        """Close connections. Idempotent."""


def create_transport(settings: OtlpSettings) -> Transport:
    """The transport for the protocol, loaded only now; it connects on first use.

    :raises TelemetryConfigError: a certificate or key cannot be read.
    """
    if settings.protocol == "grpc":
        from spanbridge.telemetry.otlp.transport_grpc import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(settings)
    from spanbridge.telemetry.otlp.transport_http import HttpTransport  # noqa: PLC0415

    return HttpTransport(settings)


def _unseen(count: int) -> str:
    """JSON as the other lines are; the telemetry events count what was in the requests."""
    return f'{{"dropped_requests": {count}}}\n'


class ConsoleTransport:
    """Prints requests as JSON, one a line, on standard output: for a look at what would be sent."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal

    async def send(self, body: Sequence[bytes], timeout: float) -> Outcome:
        """Print."""
        from google.protobuf.json_format import MessageToJson  # noqa: PLC0415

        if self._signal == "traces":
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
                ExportTraceServiceRequest as Request,
            )
        else:
            from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # type: ignore[assignment]  # noqa: PLC0415
                ExportMetricsServiceRequest as Request,
            )
        text = MessageToJson(Request.FromString(b"".join(body)), indent=None) + "\n"
        if write_out(text, _unseen, capacity=_CONSOLE_BYTES):
            return TAKEN
        return Outcome(reason="console", detail="nobody reads standard output")

    async def close(self) -> None:
        """Nothing is open."""


def partial_success(settings: OtlpSettings, body: bytes) -> Outcome:
    """Read the receiver's answer: it may have refused a part (OTLP, "Partial Success")."""
    if not body:
        return TAKEN
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        if settings.signal != "metrics":  # the answers of traces and profiles have the same fields
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
                ExportTraceServiceResponse,
            )

            traces = ExportTraceServiceResponse.FromString(body).partial_success
            return Outcome(rejected=traces.rejected_spans, detail=one_line(settings.redact(traces.error_message)))
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415
            ExportMetricsServiceResponse,
        )

        metrics = ExportMetricsServiceResponse.FromString(body).partial_success
        return Outcome(rejected=metrics.rejected_data_points, detail=one_line(settings.redact(metrics.error_message)))
    except DecodeError:
        return TAKEN  # the status said that it was taken


def one_line(text: str, limit: int = 200) -> str:
    """What a receiver said, fit for a log line."""
    return " ".join(text.split())[:limit]


def tls_context(settings: OtlpSettings) -> ssl.SSLContext:
    """The files of OTEL_EXPORTER_OTLP_CERTIFICATE and CLIENT_*, read and checked.

    :raises TelemetryConfigError: one cannot be read, is no PEM, or does not fit the other.
    """
    if settings.client_key and not settings.client_certificate:
        raise TelemetryConfigError("OTEL_EXPORTER_OTLP_CLIENT_KEY needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
    try:
        context = ssl.create_default_context(cafile=settings.certificate)
        if settings.client_certificate is not None:
            # An encrypted key fails, instead of asking for its password on a terminal that nobody watches.
            context.load_cert_chain(settings.client_certificate, settings.client_key, password=lambda: b"")
    except (OSError, ValueError) as error:
        named = ", ".join(filter(None, (settings.certificate, settings.client_certificate, settings.client_key)))
        raise TelemetryConfigError(f"OTEL_EXPORTER_OTLP_CERTIFICATE and CLIENT_*: {named}: {error}") from error
    return context
