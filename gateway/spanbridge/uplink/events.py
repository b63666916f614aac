"""What can happen to a message on its way up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesDropped(Event):
    """Messages that will not reach RocketMQ, on purpose. Acknowledged to the MQTT broker, so that others can pass.

    Counted as ``spanbridge.dropped``, by route, beside the place that reports it.
    """

    name: ClassVar[str] = "messages.dropped"
    counted: ClassVar[bool] = False
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("reason",)

    reason: str
    cause: str

    def text(self) -> str:
        """Cause, and what becomes of the messages."""
        return f"{self.count} message(s) dropped ({self.reason}): {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesDiverted(Event):
    """Messages sent to the catch-all or the rejected topic instead of their own."""

    name: ClassVar[str] = "messages.diverted"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("reason", "topic")

    reason: str
    cause: str
    topic: str

    def text(self) -> str:
        """Cause, and where the messages went."""
        return f"{self.count} message(s) sent to {self.topic!r} instead ({self.reason}): {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertiesDropped(Event):
    """Properties that RocketMQ cannot carry; their messages were forwarded without them."""

    name: ClassVar[str] = "properties.dropped"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("route",)

    route: str

    def text(self) -> str:
        """Cause, and that the message goes on."""
        return (
            f"route {self.route!r}: {self.count} propert(ies) are empty, hold control characters or exceed 128 "
            "properties or 16 KiB in all; the message is forwarded without them"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFailed(Event):
    """A batch that RocketMQ did not take. It is kept and tried again; the MQTT broker keeps what follows.

    ``peer`` is who is away: the cluster, or one of its topics, which somebody has to mend. "" where a device named it.
    """

    name: ClassVar[str] = "send.failures"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("topic", "reason")
    outage: ClassVar[str] = "{event.peer}"
    part: ClassVar[str] = "topic"

    topic: str
    reason: str
    cause: str
    delay: float
    peer: str

    def text(self) -> str:
        """Cause, and when the next attempt is."""
        return (
            f"sending {self.count} message(s) to {self.topic!r} failed: {self.cause.rstrip('.')}; they stay "
            f"unacknowledged, the next attempt is in {max(self.delay, 0.1):.1f} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRecovered(Event):
    """RocketMQ takes batches of a topic again."""

    name: ClassVar[str] = "send.recoveries"
    severity: ClassVar[Severity] = Severity.INFO
    labelled: ClassVar[tuple[str, ...]] = ("topic",)
    outage: ClassVar[str] = "{event.peer}"
    phase: ClassVar[Phase] = Phase.BACK
    part: ClassVar[str] = "topic"

    topic: str
    seconds: float
    peer: str

    def text(self) -> str:
        """How long it took."""
        return f"sending to {self.topic!r} works again after {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainIncomplete(Event):
    """The deadline came before RocketMQ had everything."""

    name: ClassVar[str] = "drain.incomplete"
    severity: ClassVar[Severity] = Severity.WARNING

    def text(self) -> str:
        """What stays where."""
        return f"stopping with {self.count} message(s) unsent: they stay with the MQTT broker, which sends them again"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolUnreadable(Event):
    """The spool cannot be read now, or a record of it is no message."""

    name: ClassVar[str] = "spool.unreadable"
    severity: ClassVar[Severity] = Severity.ERROR

    cause: str

    def text(self) -> str:
        """Cause, and what happens next."""
        return f"the spool cannot be read: {self.cause}; what can be read goes on, and it is tried again"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettersRemoved(Event):
    """Dead letters in the spool that made room for others, or were too old."""

    name: ClassVar[str] = "spool.rejected.removed"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("reason",)

    reason: str

    def text(self) -> str:
        """How many, and why."""
        cause = "there is no room for more" if self.reason == "full" else "they are older than rejected_max_age"
        return f"the {self.count} oldest of the dead letters in the spool are removed: {cause}"
