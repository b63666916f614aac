"""OTLP over gRPC: raw bytes on grpc.aio, which the RocketMQ client has loaded already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo

from spanbridge.telemetry.env import OtlpSettings, TelemetryConfigError
from spanbridge.telemetry.transport import Outcome, one_line, partial_success

_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
# OTLP specification, "OTLP/gRPC Response": RESOURCE_EXHAUSTED only when the receiver says when to come back.
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_RETRY_INFO = "google.rpc.retryinfo-bin"
_OPTIONS = (
    # Left alone, a channel waits up to two minutes before it looks again whether the receiver is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.primary_user_agent", "spanbridge"),
)


class GrpcTransport:
    """One channel, made on first use and made anew after a deadline, since the connection may be dead."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._credentials = _credentials(settings) if settings.secure else None
        self._channel: Any = None
        self._call: Any = None

    async def send(self, body: bytes, timeout: float) -> Outcome:
        """See :class:`~spanbridge.telemetry.transport.Transport`."""
        if self._call is None:
            self._open()
        try:
            answer = await self._call(body, timeout=timeout, metadata=self._settings.headers or None)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                await self.close()
            return self._failure(error)
        return partial_success(self._settings.signal, answer)

    async def close(self) -> None:
        """See :class:`~spanbridge.telemetry.transport.Transport`."""
        channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            await channel.close()

    def _open(self) -> None:
        settings = self._settings
        gzip = settings.compression == "gzip"
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(settings.target, options=_OPTIONS, compression=compression)
        else:
            self._channel = grpc.aio.secure_channel(
                settings.target, self._credentials, options=_OPTIONS, compression=compression
            )
        self._call = self._channel.unary_unary(_METHODS[settings.signal])

    def _failure(self, error: grpc.aio.AioRpcError) -> Outcome:
        code = error.code()
        retry_after = _retry_after(error)
        return Outcome(
            reason=code.name.lower(),
            detail=f"{self._settings.label} answered {code.name}: {one_line(error.details() or '')}",
            retry=code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is not None),
            retry_after=retry_after,
        )


def _retry_after(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == _RETRY_INFO:
            try:
                return float(RetryInfo.FromString(value).retry_delay.ToNanoseconds()) / 1e9
            except DecodeError:
                return None
    return None


def _credentials(settings: OtlpSettings) -> Any:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(settings.certificate, "CERTIFICATE"),
        private_key=_read(settings.client_key, "CLIENT_KEY"),
        certificate_chain=_read(settings.client_certificate, "CLIENT_CERTIFICATE"),
    )


def _read(path: str | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TelemetryConfigError(f"OTEL_EXPORTER_OTLP_{name}: {path}: {error.strerror}") from error
