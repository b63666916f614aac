"""OTLP over HTTP with protobuf bodies (OTLP specification, "OTLP/HTTP")."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from spanbridge.telemetry.env import OtlpSettings, TelemetryConfigError
from spanbridge.telemetry.otlp.http_client import HttpAnswer, HttpClient, NoAnswerError
from spanbridge.telemetry.otlp.transport import Outcome, one_line, partial_success, tls_context

_RETRYABLE = frozenset({429, 502, 503, 504})
_SMALL = 16 * 1024  # compressed at once; more goes to a thread


class HttpTransport:
    """One keep-alive connection. A proxy is taken from the environment; redirects are not followed.

    :raises TelemetryConfigError: the target is no URL, or a certificate or key cannot be read.
    """

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        headers = {"content-type": "application/x-protobuf", "user-agent": "spanbridge", **dict(settings.headers)}
        headers["accept-encoding"] = "identity"
        if settings.compression != "none":
            headers["content-encoding"] = settings.compression
        tls = tls_context(settings) if settings.secure else None
        try:
            # A URL's user name and password become basic authentication, unless a header says otherwise.
            self._client = HttpClient(settings.target, list(headers.items()), tls)
        except ValueError:  # what it says may hold a password
            raise TelemetryConfigError(f"the OTLP endpoint of {settings.signal} is not a valid URL") from None

    async def send(self, body: Sequence[bytes], timeout: float) -> Outcome:
        """See :class:`~spanbridge.telemetry.otlp.transport.Transport`."""
        try:
            async with asyncio.timeout(timeout):
                return self._outcome(await self._client.post(await self._compressed(body)))
        except TimeoutError:
            return self._failure("timeout", f"did not answer within {timeout:g} s", retry=True)
        except NoAnswerError as error:
            return self._failure("unavailable", f"it does not speak HTTP: {error}", retry=True)
        except OSError as error:
            return self._failure("unavailable", str(error) or type(error).__name__, retry=True)

    async def close(self) -> None:
        """See :class:`~spanbridge.telemetry.otlp.transport.Transport`."""
        await self._client.close()

    async def _compressed(self, body: Sequence[bytes]) -> Sequence[bytes]:
        kind = self._settings.compression
        if kind == "none":
            return body
        compress: Any = gzip.compress if kind == "gzip" else zlib.compress
        whole = b"".join(body)
        if len(whole) < _SMALL:
            return (compress(whole, 1),)
        return (await asyncio.to_thread(compress, whole, 1),)

    def _outcome(self, answer: HttpAnswer) -> Outcome:
        status = answer.status
        if 200 <= status < 300:
            return partial_success(self._settings, answer.body)
        said = _said(answer.headers.get("content-type", "").partition(";")[0].strip().lower(), answer.body)
        said = one_line(self._settings.redact(said))
        return Outcome(
            reason=str(status),
            detail=f"{self._settings.label} answered {status}{f': {said}' if said else ''}",
            retry=status in _RETRYABLE,
            retry_after=retry_after(answer.headers.get("retry-after", "").strip()),
        )

    def _failure(self, reason: str, detail: str, *, retry: bool) -> Outcome:
        detail = one_line(self._settings.redact(detail))
        return Outcome(reason=reason, detail=f"{self._settings.label}: {detail}", retry=retry)


def retry_after(value: str) -> float | None:
    """A Retry-After header in seconds from now (RFC 9110 section 10.2.3): a number, or a date."""
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _said(content_type: str, body: bytes) -> str:
    """Why the receiver refused, in its words (OTLP specification, "Failures"): a Status, or what a proxy says."""
    if content_type == "text/plain":
        return body.decode("utf-8", "replace")
    if content_type != "application/x-protobuf":
        return ""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - loaded where a request fails only
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    try:
        return str(Status.FromString(body).message)
    except DecodeError:
        return ""
