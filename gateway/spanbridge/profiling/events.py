"""What the profiler reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Severity


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
