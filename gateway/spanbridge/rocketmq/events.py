"""What the RocketMQ adapter tells the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointUp(Event):
    """An endpoint answered, for the first time or again."""

    name: ClassVar[str] = "rocketmq.endpoint.up"
    outage: ClassVar[str] = "rocketmq"
    phase: ClassVar[Phase] = Phase.BACK
    part: ClassVar[str] = "endpoint"
    labelled: ClassVar[tuple[str, ...]] = ("endpoint",)
    endpoint: str

    def text(self) -> str:
        return f"RocketMQ at {self.endpoint} answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDown(Event):
    """An endpoint that answered does not any more, or never did."""

    name: ClassVar[str] = "rocketmq.endpoint.down"
    outage: ClassVar[str] = "rocketmq"
    part: ClassVar[str] = "endpoint"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("endpoint", "reason")
    endpoint: str
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} Messages wait; the connection is tried again until it answers."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolFound(Event):
    """An endpoint has shown which protocol it speaks."""

    name: ClassVar[str] = "rocketmq.protocol.found"
    labelled: ClassVar[tuple[str, ...]] = ("protocol",)
    endpoint: str
    protocol: str

    def text(self) -> str:
        peer = "a proxy (gRPC)" if self.protocol == "grpc" else "a name server (remoting)"
        return f"RocketMQ at {self.endpoint} is {peer}: protocol {self.protocol} until this process ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolUnknown(Event):
    """No endpoint shows which protocol it speaks."""

    name: ClassVar[str] = "rocketmq.protocol.unknown"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} Which protocol it speaks is asked again until it answers; messages wait."


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelReplaced(Event):
    """A connection that had gone silent, or that the server asked to leave, was replaced by a new one."""

    name: ClassVar[str] = "rocketmq.channel.replaced"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("endpoint", "reason")
    endpoint: str
    reason: str

    def text(self) -> str:
        return f"RocketMQ at {self.endpoint}: connection replaced ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRetried(Event):
    """A send failed and is tried again inside the sink. ``count`` is the number of messages."""

    name: ClassVar[str] = "rocketmq.send.retries"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} Trying again."


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUnsafely(Event):
    """A broker stored messages, but not as safely as it is configured to. ``count`` is the number of messages."""

    name: ClassVar[str] = "rocketmq.stored_unsafely"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    endpoint: str
    again: bool

    def text(self) -> str:
        what = "They are sent again, and stored once more." if self.again else "They count as stored."
        return f"RocketMQ at {self.endpoint} stored {self.count} message(s) less safely ({self.reason}). {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLearned(Event):
    """A topic's route was seen for the first time, or changed. ``types`` is None where nobody says what it takes."""

    name: ClassVar[str] = "rocketmq.route.changes"
    topic: str
    queues: int
    types: str | None
    reading: bool = False

    def text(self) -> str:
        if self.reading:
            return f"RocketMQ topic {self.topic!r} has {self.queues} readable queue(s)"
        takes = f" and takes {self.types or 'nothing'}" if self.types is not None else ""
        return f"RocketMQ topic {self.topic!r} has {self.queues} writable queue(s){takes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicUnusable(Event):
    """A topic of the configuration does not exist, or does not take what its routes send."""

    name: ClassVar[str] = "rocketmq.topic.unusable"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("topic", "reason")
    topic: str
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} Messages for it wait, and acknowledgements of those behind them; it is looked at again."


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRefreshFailed(Event):
    """A route could not be refreshed; the known one stays in use."""

    name: ClassVar[str] = "rocketmq.route.refresh_failures"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str
    cause: str

    def text(self) -> str:
        return f"{self.cause} The route known so far stays in use."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommandRefused(Event):
    """The server asked for something a producing gateway does not do."""

    name: ClassVar[str] = "rocketmq.server_commands.refused"
    severity: ClassVar[Severity] = Severity.DEBUG
    labelled: ClassVar[tuple[str, ...]] = ("command",)
    command: str

    def text(self) -> str:
        return f"RocketMQ asked for {self.command}, which this gateway does not do: answered so"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundFault(Event):
    """A background task met what it does not expect, from a peer or of our own making. It goes on."""

    name: ClassVar[str] = "rocketmq.background_faults"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("task",)
    task: str
    cause: str

    def text(self) -> str:
        return f"RocketMQ, {self.task}: {self.cause}. It is tried again."
