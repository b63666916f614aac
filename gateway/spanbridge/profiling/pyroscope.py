"""The way of the gateway's profiles to a Pyroscope server: the requests that instrumented programs send."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from spanbridge.ports import Reporter
from spanbridge.profiling.events import ProfilesDelivered, ProfilesUndelivered
from spanbridge_profiling.push import pyroscope_poster
from spanbridge_profiling.settings import read_headers

_TIMEOUT = 5.0
"""Seconds that a request may take. A stop waits for the one that is under way."""


class PyroscopePush:
    """Sends ``PushRequest`` messages, each on a thread of the pool: one at a time.

    :param headers: ``name=value`` pairs with percent-encoded values.
    :raises spanbridge_profiling.settings.SettingError: the headers are none.
    """

    def __init__(self, url: str, headers: str, reporter: Reporter) -> None:
        given: Mapping[str, str] = dict(read_headers(headers, "profiling.pyroscope_headers"))
        self._post = pyroscope_poster(url, given, _TIMEOUT)
        self._reporter = reporter
        self._failing = False

    async def push(self, body: bytes, count: int) -> None:
        """Send one request with ``count`` samples; what could not be delivered is reported."""
        try:
            await asyncio.to_thread(self._post, body)
        except OSError as error:
            self._failing = True
            self._reporter.report(ProfilesUndelivered(cause=str(error), count=count))
            return
        if self._failing:
            self._failing = False
            self._reporter.report(ProfilesDelivered())
