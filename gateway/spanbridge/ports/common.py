"""What everything needs: a clock, somebody who takes events, work in the background, how a peer is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from spanbridge.core.events import Event


class Link(StrEnum):
    """State of a connection to a peer."""

    IDLE = "idle"
    CONNECTING = "connecting"
    UP = "up"
    BACKOFF = "backoff"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A snapshot for health and /status. ``since_ns`` is Unix time in nanoseconds: since when it is up, or is not.

    Between attempts to connect ``link`` changes, ``since_ns`` does not. ``last_error`` is one line without secrets.
    ``detail`` is JSON-able and specific to the adapter. ``last_error_ns`` is Unix time in nanoseconds: when the last
    error was, also after it is over; 0 means that there was none.
    """

    name: str
    link: Link
    since_ns: int
    last_error: str | None
    detail: dict[str, Any]
    last_error_ns: int = 0


class Reporter(Protocol):
    """Where internal events go: counted always, logged with a rate limit."""

    def report(self, event: Event) -> None:
        """Take an event. Never raises, never blocks."""


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def now_ns(self) -> int:
        """Unix time in nanoseconds."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment. Never set, as Unix time is once a machine without a clock has network."""

    async def sleep(self, seconds: float) -> None:
        """Pause the calling task."""


class Service(Protocol):
    """Something that runs in the background: started in the order of the gateway's list, stopped in reverse."""

    @property
    def name(self) -> str:
        """A word for /status."""

    async def start(self) -> None:
        """Begin. Returns as soon as it runs.

        :raises SpanbridgeError: it cannot, and no retry would help.
        """

    async def stop(self) -> None:
        """End, and wait until that is done. Idempotent."""

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""
