"""What the profiler reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilerUnavailable(Event):
    """The gateway cannot be profiled on this system."""

    name: ClassVar[str] = "profiling.unavailable"
    severity: ClassVar[Severity] = Severity.WARNING
    counted: ClassVar[bool] = False

    cause: str

    def text(self) -> str:
        """Why not."""
        return f"the gateway cannot be profiled: {self.cause}; it runs without"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFailed(Event):
    """A profile could not be made or encoded. Sampling goes on."""

    name: ClassVar[str] = "profiling.failures"
    severity: ClassVar[Severity] = Severity.ERROR

    cause: str

    def text(self) -> str:
        """The fault."""
        return f"a profile could not be made: {self.cause}; its samples are dropped, sampling goes on"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilesUndelivered(Event):
    """The Pyroscope server does not take profiles: it cannot be reached, or refuses them. Messages are not affected."""

    name: ClassVar[str] = "profiling.push.failures"
    severity: ClassVar[Severity] = Severity.WARNING
    outage: ClassVar[str] = "pyroscope"

    cause: str

    def text(self) -> str:
        """Cause, and what happens to samples now."""
        return f"Pyroscope takes no profile: {self.cause}; {self.count} sample(s) are dropped, the next ones are sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilesDelivered(Event):
    """The Pyroscope server takes profiles again."""

    name: ClassVar[str] = "profiling.push.recoveries"
    outage: ClassVar[str] = "pyroscope"
    phase: ClassVar[Phase] = Phase.BACK

    def text(self) -> str:
        """That it does."""
        return "Pyroscope takes profiles again"
