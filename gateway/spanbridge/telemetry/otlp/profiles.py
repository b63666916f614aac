"""The way of profiles to an OTLP receiver: the variables, transports and retries of the other signals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from spanbridge.ports import Reporter
from spanbridge.telemetry.env import otlp_settings
from spanbridge.telemetry.otlp.exporter import RequestSender
from spanbridge.telemetry.otlp.transport import create_transport

_GIVE_UP_AFTER = 60.0
"""Seconds after which a profile that the receiver keeps refusing gives way to a newer one."""


class ProfileExport:
    """Sends ``ExportProfilesServiceRequest`` messages. It connects on first use.

    :raises TelemetryConfigError: an OTEL_EXPORTER_OTLP_* variable cannot be used.
    """

    def __init__(self, environ: Mapping[str, str], reporter: Reporter) -> None:
        settings = otlp_settings("profiles", environ)
        self._closing = asyncio.Event()
        self._transport = create_transport(settings)
        self._sender = RequestSender(
            signal="profiles",
            transport=self._transport,
            reporter=reporter,
            timeout=settings.timeout or 10.0,
            give_up_after=_GIVE_UP_AFTER,
            closing=self._closing,
        )

    async def push(self, body: bytes, count: int) -> None:
        """Send one request with ``count`` samples; what could not be delivered is reported."""
        await self._sender.send((body,), count)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._transport.close(), 1.0)
