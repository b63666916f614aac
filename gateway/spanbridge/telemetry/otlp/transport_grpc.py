"""OTLP over gRPC: raw bytes on grpc.aio, which nothing else of the gateway loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from spanbridge.telemetry.env import OtlpSettings
from spanbridge.telemetry.otlp.transport import Outcome, one_line, partial_success, tls_context

_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "profiles": "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
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
_STATUS_DETAILS = "grpc-status-details-bin"
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

    async def send(self, body: Sequence[bytes], timeout: float) -> Outcome:
        """See :class:`~spanbridge.telemetry.otlp.transport.Transport`."""
        if self._call is None:
            self._open()
        try:
            answer = await self._call(b"".join(body), timeout=timeout, metadata=self._settings.headers or None)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                await self.close()
            return self._failure(error)
        return partial_success(self._settings, answer)

    async def close(self) -> None:
        """See :class:`~spanbridge.telemetry.otlp.transport.Transport`."""
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
        said = one_line(self._settings.redact(error.details() or ""))
        return Outcome(
            reason=code.name.lower(),
            detail=f"{self._settings.label} answered {code.name}: {said}",
            retry=code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is not None),
            retry_after=retry_after,
        )


def _retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """How long the receiver wants to be left alone (OTLP specification, "OTLP/gRPC Throttling"), in seconds."""
    for key, value in error.trailing_metadata() or ():
        try:
            if key == _STATUS_DETAILS:  # where gRPC puts the details of a status, and the Collector its RetryInfo
                for detail in Status.FromString(value).details:
                    if detail.Is(RetryInfo.DESCRIPTOR):
                        return _seconds(detail.value)
            elif key == _RETRY_INFO:
                return _seconds(value)
        except DecodeError:
            continue
    return None


def _seconds(encoded: bytes) -> float:
    return float(RetryInfo.FromString(encoded).retry_delay.ToNanoseconds()) / 1e9


def _credentials(settings: OtlpSettings) -> Any:
    tls_context(settings)  # gRPC would find out what is wrong with a file at every attempt, and not say which one
    key = settings.client_key or settings.client_certificate  # one file may hold both
    return grpc.ssl_channel_credentials(
        root_certificates=_read(settings.certificate),
        private_key=_read(key),
        certificate_chain=_read(settings.client_certificate),
    )


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
