"""OTLP over HTTP with protobuf bodies (OTLP specification, "OTLP/HTTP")."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
import zlib
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from yarl import URL

from spanbridge.telemetry.env import OtlpSettings, TelemetryConfigError
from spanbridge.telemetry.otlp.transport import Outcome, one_line, partial_success, tls_context

_RETRYABLE = frozenset({429, 502, 503, 504})
_SMALL = 16 * 1024  # compressed at once; more goes to a thread
_LONGEST_ANSWER = 64 * 1024
"""Bytes that are read of an answer: whoever answers must not decide on our memory."""


class HttpTransport:
    """One keep-alive session. Proxies are taken from the environment; redirects are not followed.

    :raises TelemetryConfigError: the target is no URL, or a certificate or key cannot be read.
    """

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._tls: ssl.SSLContext | bool = tls_context(settings) if settings.secure else True
        self._headers = {"content-type": "application/x-protobuf", "user-agent": "spanbridge", **dict(settings.headers)}
        self._headers["accept-encoding"] = "identity"
        if settings.compression != "none":
            self._headers["content-encoding"] = settings.compression
        try:
            target = URL(settings.target)
        except ValueError:  # what it says may hold a password
            raise TelemetryConfigError(f"the OTLP endpoint of {settings.signal} is not a valid URL") from None
        # A URL's user name and password become basic authentication, unless a header says otherwise.
        self._target = target.with_user(None) if "authorization" in self._headers else target
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: bytes, timeout: float) -> Outcome:
        """See :class:`~spanbridge.telemetry.otlp.transport.Transport`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=True, auto_decompress=False)
        try:
            async with self._session.post(
                self._target,
                data=await self._compressed(body),
                headers=self._headers,
                ssl=self._tls,
                timeout=aiohttp.ClientTimeout(total=timeout),
                allow_redirects=False,
            ) as response:
                return self._outcome(response.status, response.headers, await _answer(response))
        except TimeoutError:
            return self._failure("timeout", f"did not answer within {timeout:g} s", retry=True)
        except aiohttp.ClientResponseError as error:  # as text it tells the whole URL
            return self._failure("unavailable", f"it does not speak HTTP: {error.message}", retry=True)
        except (aiohttp.ClientError, OSError) as error:
            return self._failure("unavailable", str(error) or type(error).__name__, retry=True)

    async def close(self) -> None:
        """See :class:`~spanbridge.telemetry.otlp.transport.Transport`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _compressed(self, body: bytes) -> bytes:
        kind = self._settings.compression
        if kind == "none":
            return body
        compress: Any = gzip.compress if kind == "gzip" else zlib.compress
        if len(body) < _SMALL:
            return bytes(compress(body, 1))
        return bytes(await asyncio.to_thread(compress, body, 1))

    def _outcome(self, status: int, headers: Any, body: bytes) -> Outcome:
        if 200 <= status < 300:
            return partial_success(self._settings, body)
        said = _said(headers.get("Content-Type", "").partition(";")[0].strip().lower(), body)
        said = one_line(self._settings.redact(said))
        return Outcome(
            reason=str(status),
            detail=f"{self._settings.label} answered {status}{f': {said}' if said else ''}",
            retry=status in _RETRYABLE,
            retry_after=retry_after(headers.get("Retry-After", "").strip()),
        )

    def _failure(self, reason: str, detail: str, *, retry: bool) -> Outcome:
        detail = one_line(self._settings.redact(detail))
        return Outcome(reason=reason, detail=f"{self._settings.label}: {detail}", retry=retry)


async def _answer(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of a body; nothing of one that is compressed, which nobody asked for."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return b""
    body = b""
    while len(body) < _LONGEST_ANSWER and (chunk := await response.content.read(_LONGEST_ANSWER - len(body))):
        body += chunk
    return body


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
