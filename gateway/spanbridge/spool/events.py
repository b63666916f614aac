"""What can happen to the spool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOpened(Event):
    """The spool is open. What an earlier run left in it is sent before anything else."""

    name: ClassVar[str] = "spool.opened"
    counted: ClassVar[bool] = False

    path: str
    messages: int
    size: int
    holds: str = "messages"

    def text(self) -> str:
        """Where it is, and what is in it."""
        if self.holds != "messages":
            return f"{self.path} holds {self.messages} of the {self.holds}, {self.size} bytes, which stay there"
        left = f"holds {self.messages} message(s), {self.size} bytes, which go first" if self.messages else "is empty"
        return f"the spool in {self.path} {left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLost(Event):
    """Messages in the spool that cannot be read: the disk has spoiled them."""

    name: ClassVar[str] = "spool.lost"
    severity: ClassVar[Severity] = Severity.ERROR

    first: int
    end: int
    holds: str = "messages"

    def text(self) -> str:
        """Which, and that the others go on."""
        return (
            f"{self.count} of the {self.holds} in the spool cannot be read (numbers {self.first} to {self.end - 1}): "
            "the disk has spoiled them; those behind them go on"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFailed(Event):
    """The disk does not take messages, or it is full. Nothing is acknowledged that is not on it."""

    name: ClassVar[str] = "spool.failures"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    outage: ClassVar[str] = "spool, {event.holds}"

    reason: str
    cause: str
    holds: str = "messages"

    def text(self) -> str:
        """Cause, and what happens to messages now."""
        if self.holds != "messages":
            return f"{self.cause}; {self.count} of the {self.holds} are dropped and counted"
        return f"{self.cause}; {self.count} message(s) stay unacknowledged, and it is tried again"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolMarkFailed(Event):
    """What is done cannot be written down: the spool does not get smaller."""

    name: ClassVar[str] = "spool.watermark.failures"
    severity: ClassVar[Severity] = Severity.ERROR

    cause: str
    holds: str = "messages"

    def text(self) -> str:
        """Cause, and what comes of it."""
        if self.holds != "messages":
            return f"{self.cause}; {self.holds} that were removed are there again after a restart; it is tried again"
        return (
            f"{self.cause}; messages that were sent stay in the spool, and go to RocketMQ again after a restart; "
            "it is tried again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolWorks(Event):
    """The disk takes messages again."""

    name: ClassVar[str] = "spool.recoveries"
    outage: ClassVar[str] = "spool, {event.holds}"
    phase: ClassVar[Phase] = Phase.BACK

    holds: str = "messages"

    def text(self) -> str:
        """That it does."""
        return f"the spool takes {self.holds} again"
