"""What the lag service tells the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class LagUnreadable(Event):
    """One reading of the lag, or a part of it, failed. ``count`` is the number of groups' topics without a number."""

    name: ClassVar[str] = "lag.failures"
    severity: ClassVar[Severity] = Severity.WARNING
    outage: ClassVar[str] = "lag"
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    attributes: ClassVar[dict[str, str]] = {"reason": "error.type"}

    reason: str
    cause: str

    def text(self) -> str:
        """The first cause, and what is not affected."""
        return f"the consumer lag could not be read: {self.cause}; messages are not affected, it is read again"


@dataclass(frozen=True, slots=True, kw_only=True)
class LagReadable(Event):
    """The lag can be read again."""

    name: ClassVar[str] = "lag.recoveries"
    outage: ClassVar[str] = "lag"
    phase: ClassVar[Phase] = Phase.BACK

    def text(self) -> str:
        """That it can."""
        return "the consumer lag can be read again"
