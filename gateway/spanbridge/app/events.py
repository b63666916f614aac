"""What happens to the gateway as a whole: it starts, stops, and reads its configuration again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge import __version__
from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStarted(Event):
    """The gateway runs."""

    name: ClassVar[str] = "gateway.starts"

    gateway: str
    brokers: str
    cluster: str
    routes: int
    downlinks: int = 0

    def text(self) -> str:
        """What it connects, and which way messages go."""
        counts = {"route(s)": self.routes, "downlink(s)": self.downlinks}
        arrow = "<->" if all(counts.values()) else "<-" if self.downlinks else "->"
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        what = f"{self.brokers} {arrow} {self.cluster}, {told}"
        return f"spanbridge {__version__} {self.gateway!r} started: {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStopping(Event):
    """The gateway was asked to stop."""

    name: ClassVar[str] = "gateway.stops"

    cause: str
    in_flight: int
    deadline: float
    downward: int = 0

    def text(self) -> str:
        """How long that may take. ``downward`` are messages on their way to MQTT."""
        down = f", publishing {self.downward}" if self.downward else ""
        what = f"sending {self.in_flight} message(s) in flight{down}"
        return f"stopping ({self.cause}): {what}, for up to {self.deadline:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStopped(Event):
    """The gateway has stopped."""

    name: ClassVar[str] = "gateway.stopped"
    counted: ClassVar[bool] = False

    sent: int
    left: int
    published: int = 0
    given_back: int = 0

    def text(self) -> str:
        """The tally."""
        down = f"; {self.published} published, {self.given_back} given back to RocketMQ" if self._downward else ""
        return f"stopped: {self.sent} message(s) sent, {self.left} left with the MQTT broker{down}"

    @property
    def _downward(self) -> int:
        return self.published + self.given_back


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReloaded(Event):
    """The configuration was read again and is in force."""

    name: ClassVar[str] = "config.reloads"

    file: str
    changes: str
    warnings: int = 0

    def text(self) -> str:
        """What changed."""
        note = f"; {self.warnings} warning(s), see `spanbridge check`" if self.warnings else ""
        return f"{self.file} was read again and is in force: {self.changes}{note}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRefused(Event):
    """The configuration was read again and cannot be used. The former one stays in force."""

    name: ClassVar[str] = "config.refusals"
    severity: ClassVar[Severity] = Severity.ERROR

    file: str
    errors: int

    def text(self) -> str:
        """How many errors; each has a line of its own."""
        return f"{self.file} was read again and has {self.errors} error(s); the former configuration stays in force"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigProblem(Event):
    """One error of a configuration that was read again, as `run` and `check` tell it."""

    name: ClassVar[str] = "config.problem"
    severity: ClassVar[Severity] = Severity.ERROR
    counted: ClassVar[bool] = False
    labelled: ClassVar[tuple[str, ...]] = ("problem",)

    problem: str

    def text(self) -> str:
        """File, line, setting, what is wrong, a hint."""
        return self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigNeedsRestart(Event):
    """Settings differ from those in force that only a restart can change. The rest was taken over."""

    name: ClassVar[str] = "config.restart_needed"
    severity: ClassVar[Severity] = Severity.WARNING

    file: str
    settings: str

    def text(self) -> str:
        """Which ones."""
        return f"{self.file}: {self.settings} takes a restart; the former value stays in force until then"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRemoved(Event):
    """A connection to an MQTT broker that the configuration has no longer is closed. Nobody waits for the broker."""

    name: ClassVar[str] = "mqtt.removed"
    labelled: ClassVar[tuple[str, ...]] = ("source",)
    outage: ClassVar[str] = "mqtt:{event.source}"
    phase: ClassVar[Phase] = Phase.BACK

    source: str
    broker: str

    def text(self) -> str:
        """Which."""
        return f"the connection {self.source!r} to {self.broker} is closed: the configuration has it no longer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRemoved(Event):
    """A downlink's consumer that the configuration has no longer, or not so, is closed. Nobody waits for it."""

    name: ClassVar[str] = "rocketmq.receive.removed"
    labelled: ClassVar[tuple[str, ...]] = ("group",)
    outage: ClassVar[str] = "rocketmq:{event.group}"
    phase: ClassVar[Phase] = Phase.BACK

    group: str
    downlink: str

    def text(self) -> str:
        """Whose."""
        return f"downlink {self.downlink!r} receives no longer for group {self.group!r}: the configuration has changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStopFailed(Event):
    """A part of the gateway did not stop in order. The others are stopped all the same."""

    name: ClassVar[str] = "services.stop_failures"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("service",)

    service: str
    cause: str

    def text(self) -> str:
        """Which, and why."""
        return f"stopping {self.service} failed: {self.cause}; the others are stopped all the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxDone(Event):
    """What a command asked of the spool is done."""

    name: ClassVar[str] = "spool.inbox.done"

    what: str

    def text(self) -> str:
        """What was done."""
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxFailed(Event):
    """What a command asked of the spool cannot be done, or not now."""

    name: ClassVar[str] = "spool.inbox.failures"
    severity: ClassVar[Severity] = Severity.ERROR

    cause: str

    def text(self) -> str:
        """Cause, and what happens next."""
        return f"the spool's inbox: {self.cause}; what waits there is tried again"
