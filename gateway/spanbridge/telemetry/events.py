"""What telemetry itself reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Severity

_COUNTED = {"traces": "span(s)", "profiles": "profile sample(s)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _SignalEvent(Event):
    """``signal`` is what is exported: traces, metrics or profiles."""

    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("signal", "reason")
    attributes: ClassVar[Mapping[str, str]] = {"signal": "otel.signal"}

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFailed(_SignalEvent):
    """One request to the OTLP receiver failed. ``reason`` is a gRPC or HTTP status, or a short word."""

    name: ClassVar[str] = "telemetry.export.failures"
    attributes: ClassVar[Mapping[str, str]] = {"signal": "otel.signal", "reason": "error.type"}

    reason: str
    detail: str
    retried: bool

    def text(self) -> str:
        then = "trying again, newer ones wait in a bounded buffer" if self.retried else "they are dropped and counted"
        return f"cannot export {self.signal}: {self.detail}; {then}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryDropped(_SignalEvent):
    """Spans, data points or samples that nobody will see. ``count`` is how many."""

    name: ClassVar[str] = "telemetry.dropped"

    reason: str
    detail: str = ""

    def text(self) -> str:
        what = _COUNTED.get(self.signal, "metric data point(s)")
        why = f"{self.reason}: {self.detail}" if self.detail else self.reason
        return f"{self.count} {what} dropped ({why}); messages are not affected"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverWarned(_SignalEvent):
    """The OTLP receiver took everything and has something to say about it."""

    name: ClassVar[str] = "telemetry.export.warnings"
    labelled: ClassVar[tuple[str, ...]] = ("signal",)

    detail: str

    def text(self) -> str:
        return f"the OTLP receiver took the {self.signal} and says: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError(Event):
    """A fault of ours. Messages that it stops are nacked: the source brings them again."""

    name: ClassVar[str] = "internal.errors"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("where",)

    where: str
    cause: str

    def text(self) -> str:
        """The exception's type and text; please report it."""
        return f"internal error in {self.where}: {self.cause}; please report it"
