"""What can happen to a message on its way down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkRejected(Event):
    """Messages of a downlink that can never reach MQTT: they are in the dead letters of its consumer group."""

    name: ClassVar[str] = "downlink.rejected"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("downlink", "reason")

    downlink: str
    reason: str
    cause: str

    def text(self) -> str:
        """Cause, and where the messages go."""
        return (
            f"downlink {self.downlink!r}: {self.count} message(s) rejected ({self.reason}): {self.cause}; they go to "
            "the dead letters of the consumer group"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkDropped(Event):
    """Messages of a downlink that will not reach MQTT, on purpose. Acknowledged to RocketMQ."""

    name: ClassVar[str] = "downlink.dropped"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("downlink", "reason")

    downlink: str
    reason: str
    cause: str

    def text(self) -> str:
        """Cause, and what becomes of the messages."""
        return f"downlink {self.downlink!r}: {self.count} message(s) dropped ({self.reason}): {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkNacked(Event):
    """Messages of a downlink that did not reach MQTT this time. RocketMQ brings them again."""

    name: ClassVar[str] = "downlink.nacked"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("downlink", "reason")

    downlink: str
    reason: str
    cause: str

    def text(self) -> str:
        """Cause, and that the messages come again."""
        return (
            f"downlink {self.downlink!r}: {self.count} message(s) nacked ({self.reason}): {self.cause}; RocketMQ "
            "brings them again after a pause"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkParked(Event):
    """A message of a message group that cannot go now. It is held and tried again here; other groups go on."""

    name: ClassVar[str] = "downlink.parked"
    labelled: ClassVar[tuple[str, ...]] = ("downlink", "reason")

    downlink: str
    reason: str
    cause: str

    def text(self) -> str:
        """Cause, and what happens next."""
        return (
            f"downlink {self.downlink!r}: {self.count} message(s) held for another attempt ({self.reason}): "
            f"{self.cause}; those of other message groups go on"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkPropertiesDropped(Event):
    """Properties that MQTT cannot carry; their messages were published without them."""

    name: ClassVar[str] = "downlink.properties.dropped"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("downlink",)

    downlink: str

    def text(self) -> str:
        """Cause, and that the message goes on."""
        return (
            f"downlink {self.downlink!r}: {self.count} propert(ies) hold characters that MQTT refuses; the message is "
            "published without them"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkIsPlain(Event):
    """A downlink to MQTT 3.1.1 met properties: that version has none. Told once, since it holds for all messages."""

    name: ClassVar[str] = "downlink.plain"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("downlink",)

    downlink: str

    def text(self) -> str:
        """Cause, and what is left out."""
        return (
            f"downlink {self.downlink!r}: MQTT 3.1.1 has no properties; messages are published with topic and payload "
            "alone (this is told once)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkIncomplete(Event):
    """The deadline came before the MQTT broker had everything."""

    name: ClassVar[str] = "downlink.incomplete"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("downlink",)

    downlink: str

    def text(self) -> str:
        """What goes where."""
        return (
            f"downlink {self.downlink!r}: stopping with {self.count} message(s) unpublished: they are given back to "
            "RocketMQ, which brings them to another consumer, or to the next start"
        )
