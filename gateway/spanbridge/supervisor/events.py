"""What happens to workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Event):
    """A worker's process was started."""

    name: ClassVar[str] = "workers.starts"
    labelled: ClassVar[tuple[str, ...]] = ("worker",)

    worker: int
    pid: int

    def text(self) -> str:
        """Its process."""
        return f"worker {self.worker} started, process {self.pid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied(Event):
    """A worker ended that was not to end. ``retry_in`` is in seconds."""

    name: ClassVar[str] = "workers.deaths"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("worker",)

    worker: int
    cause: str
    retry_in: float

    def text(self) -> str:
        """Why, and when there is another one."""
        then = f"it is started again in {self.retry_in:.1f} s, and what it had not acknowledged comes again"
        return f"worker {self.worker} {self.cause}; {then}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHopeless(Event):
    """A worker ended for a cause that a restart does not mend."""

    name: ClassVar[str] = "workers.hopeless"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("worker",)

    worker: int
    cause: str

    def text(self) -> str:
        """Why, and what becomes of the others."""
        return f"worker {self.worker} {self.cause}: somebody has to mend its configuration; all workers are stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersStopping(Event):
    """The gateway was asked to stop."""

    name: ClassVar[str] = "workers.stopping"
    counted: ClassVar[bool] = False

    cause: str
    workers: int
    deadline: float

    def text(self) -> str:
        """How long that may take, in seconds."""
        return f"stopping ({self.cause}): {self.workers} worker(s) drain, for up to {self.deadline:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersStopped(Event):
    """All workers have ended."""

    name: ClassVar[str] = "workers.stopped"
    counted: ClassVar[bool] = False

    failed: int

    def text(self) -> str:
        """How many of them not in order."""
        return "stopped: all workers have ended" + (f", {self.failed} of them not in order" if self.failed else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerKilled(Event):
    """A worker was ended by force."""

    name: ClassVar[str] = "workers.kills"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("worker",)

    worker: int
    why: str

    def text(self) -> str:
        """Why; what it held is safe."""
        return f"worker {self.worker} {self.why}; it is killed, and what it had not acknowledged comes again"
