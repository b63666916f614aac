"""What the RocketMQ adapter tells the operator of receiving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveFailed(Event):
    """A broker, or the cluster, does not let a consumer group receive from a topic."""

    name: ClassVar[str] = "rocketmq.receive.failures"
    outage: ClassVar[str] = "rocketmq:{event.group}"
    part: ClassVar[str] = "broker"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic", "reason")
    group: str
    topic: str
    broker: str
    reason: str
    cause: str
    retry_in: float

    def text(self) -> str:
        return f"{self.cause} Messages wait at the broker; trying again in {self.retry_in:.1f} s."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveWorks(Event):
    """A consumer group receives from a broker, for the first time or again."""

    name: ClassVar[str] = "rocketmq.receive.up"
    outage: ClassVar[str] = "rocketmq:{event.group}"
    phase: ClassVar[Phase] = Phase.BACK
    part: ClassVar[str] = "broker"
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic")
    group: str
    topic: str
    broker: str

    def text(self) -> str:
        where = f" ({self.broker})" if self.broker else ""
        return f"Group {self.group!r} receives from RocketMQ topic {self.topic!r}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesAgain(Event):
    """Messages came again while they were in our hands. Their new receipt handles are used from now on."""

    name: ClassVar[str] = "rocketmq.messages.redelivered"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic")
    group: str
    topic: str

    def text(self) -> str:
        return f"Group {self.group!r}: {self.count} message(s) came again while in our hands; not handed over twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldLost(Event):
    """RocketMQ does not know the receipt handle of an unacked message any more: it will come again."""

    name: ClassVar[str] = "rocketmq.holds.lost"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic")
    group: str
    topic: str

    def text(self) -> str:
        return f"Group {self.group!r}: RocketMQ took back a message that was not acknowledged yet; it comes again"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalFailed(Event):
    """The invisible time of an unacked message could not be made longer. It is tried again until it ends."""

    name: ClassVar[str] = "rocketmq.renewals.failures"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} Trying again while the message is ours."


@dataclass(frozen=True, slots=True, kw_only=True)
class AckRetried(Event):
    """Acknowledgements failed and are tried again. ``count`` is the number of messages."""

    name: ClassVar[str] = "rocketmq.acks.retries"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} Trying again while the messages are ours."


@dataclass(frozen=True, slots=True, kw_only=True)
class AckLate(Event):
    """Messages were handled, and RocketMQ no longer takes the acknowledgement: they come again."""

    name: ClassVar[str] = "rocketmq.acks.late"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic")
    group: str
    topic: str

    def text(self) -> str:
        return f"Group {self.group!r}: {self.count} acknowledgement(s) came too late for RocketMQ; they come again"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesPostponed(Event):
    """Messages were not handled: they come again after a pause. Who nacked them has said so, and why."""

    name: ClassVar[str] = "rocketmq.messages.nacked"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic")
    group: str
    topic: str
    cause: str

    def text(self) -> str:
        return f"Group {self.group!r}: {self.count} message(s) were not handled and come again later: {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NackFailed(Event):
    """RocketMQ could not be told when a message is to come again: it comes when its invisible time ends."""

    name: ClassVar[str] = "rocketmq.nacks.failures"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} The message comes again when its invisible time ends."


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesDeadLettered(Event):
    """Messages can never be handled: they go to the group's dead letters. Who rejected them has said so, and why."""

    name: ClassVar[str] = "rocketmq.messages.rejected"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic")
    group: str
    topic: str
    cause: str

    def text(self) -> str:
        return f"Group {self.group!r}: {self.count} message(s) go to its dead letters: {self.cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFailed(Event):
    """A message could not be moved to the dead letters: it comes again."""

    name: ClassVar[str] = "rocketmq.dead_letters.failures"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} The message comes again later."


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesReturned(Event):
    """Unacked messages are handed back, so that others get them at once."""

    name: ClassVar[str] = "rocketmq.messages.given_back"
    labelled: ClassVar[tuple[str, ...]] = ("group", "topic")
    group: str
    topic: str

    def text(self) -> str:
        return f"Group {self.group!r}: {self.count} message(s) are given back to RocketMQ"
