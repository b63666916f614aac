"""What ``spanbridge check --connect`` has to tell, and what all its questions share."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Literal

from spanbridge.core.events import Event

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class PeerFinding:
    """What one side says about one thing. ``milliseconds`` is the time that its answer took, None without one."""

    peer: str
    subject: str
    state: State
    text: str
    milliseconds: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the gateway can work with it."""
        return self.state in ("ok", "warning")


class Silent:
    """A reporter for whom nothing is news: what is asked about says the same."""

    def report(self, event: Event) -> None:
        """Take an event."""


def milliseconds(since: float) -> float:
    """How long ago that was (``monotonic()``)."""
    return round((monotonic() - since) * 1000, 1)
