"""``/debug/pprof/profile``: a profile of how many seconds, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from spanbridge.admin.pages import Answer, LaterAnswer, error
from spanbridge.core.errors import SpanbridgeError

LONGEST = 60.0
"""Seconds of one profile at most."""
_DEFAULT = 30.0
"""What other pprof servers take when nobody says how long."""
_BUSY = "profiling_busy"


@dataclass(frozen=True, slots=True)
class Profiles:
    """The page. ``make`` makes a profile of so many seconds.

    It raises :class:`SpanbridgeError` where there is no profile to be had; reason ``profiling_busy`` means later.
    """

    make: Callable[[float], Awaitable[bytes]]

    def __call__(self, query: str) -> Answer | LaterAnswer:
        """Answer a request."""
        seconds = _seconds(query)
        if seconds is None:
            return error(400, f"`seconds` is no number above 0 and up to {LONGEST:g}")
        return LaterAnswer(lambda: self._make(seconds))

    async def _make(self, seconds: float) -> Answer:
        try:
            body = await self.make(seconds)
        except SpanbridgeError as cause:
            return error(409 if cause.reason == _BUSY else 503, str(cause))
        name = {"Content-Disposition": 'attachment; filename="cpu.pb.gz"'}
        return Answer(200, body, "application/octet-stream", name)


def _seconds(query: str) -> float | None:
    """The wanted length; None for one that cannot be."""
    given = parse_qs(query, keep_blank_values=True, max_num_fields=20).get("seconds")
    if given is None:
        return _DEFAULT
    try:
        seconds = float(given[-1])
    except ValueError:
        return None
    return seconds if 0 < seconds <= LONGEST else None
