"""What MQTT connections report. Labels stay low in cardinality; texts name the cause first, then what happens next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from spanbridge.core.events import Event, Phase, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttEvent(Event):
    """``source`` is the configured name of the connection, ``broker`` its host and port."""

    labelled: ClassVar[tuple[str, ...]] = ("source",)

    source: str
    broker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure(MqttEvent):
    """``reason`` is the stable word of the error, ``cause`` one line for people, ``retry_in`` seconds."""

    labelled: ClassVar[tuple[str, ...]] = ("source", "reason")
    outage: ClassVar[str] = "mqtt:{event.source}"

    reason: str
    cause: str
    retry_in: float
    kept: str = "unacknowledged messages stay with the broker"
    """What becomes of messages that are under way."""


def again(seconds: float) -> str:
    """When the next attempt is, in words."""
    if seconds < 0.01:
        return "at once"
    return f"in {seconds:.2f} s" if seconds < 1 else f"in {seconds:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(MqttEvent):
    """The broker accepted the connection and answered every subscription."""

    name: ClassVar[str] = "mqtt.connected"
    outage: ClassVar[str] = "mqtt:{event.source}"
    phase: ClassVar[Phase] = Phase.BACK

    client_id: str
    session_present: bool
    subscriptions: int | None
    """None: the connection is for publishing."""

    def text(self) -> str:
        session = "resumed the session" if self.session_present else "with a new session"
        use = "to publish" if self.subscriptions is None else f"{self.subscriptions} subscription(s)"
        return f"{self.source}: connected to {self.broker} as {self.client_id!r}, {session}, {use}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRenewed(MqttEvent):
    """We ended the connection to make it anew with other options (credentials, certificates, ...)."""

    name: ClassVar[str] = "mqtt.renewed"

    def text(self) -> str:
        return f"{self.source}: options changed; connecting to {self.broker} anew, the session is kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectFailed(_Failure):
    """No connection came about: nobody there, TLS failed, or no CONNACK in time."""

    name: ClassVar[str] = "mqtt.connect.failed"
    severity: ClassVar[Severity] = Severity.WARNING

    def text(self) -> str:
        return f"{self.source}: {self.cause}; trying again {again(self.retry_in)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRefused(_Failure):
    """The broker answered CONNECT with a refusal: usually something an operator has to mend."""

    name: ClassVar[str] = "mqtt.connect.refused"
    severity: ClassVar[Severity] = Severity.ERROR

    def text(self) -> str:
        return f"{self.source}: {self.cause}; trying again {again(self.retry_in)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(_Failure):
    """An established connection ended without our asking. What is unacknowledged stays where it is."""

    name: ClassVar[str] = "mqtt.disconnected"
    severity: ClassVar[Severity] = Severity.WARNING

    def text(self) -> str:
        return f"{self.source}: {self.cause}; {self.kept}, connecting again {again(self.retry_in)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadPacket(_Failure):
    """The broker sent a packet that is malformed, too large or against the protocol."""

    name: ClassVar[str] = "mqtt.bad_packet"
    severity: ClassVar[Severity] = Severity.ERROR

    def text(self) -> str:
        text = f"{self.source}: {self.broker}: {self.cause}"
        return f"{text}; disconnected, connecting again {again(self.retry_in)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRefused(MqttEvent):
    """The broker does not grant a subscription. The others work on; this one is asked for again."""

    name: ClassVar[str] = "mqtt.subscription.refused"
    severity: ClassVar[Severity] = Severity.ERROR
    labelled: ClassVar[tuple[str, ...]] = ("source", "reason")

    filter: str
    reason: str
    cause: str
    retry_in: float

    def text(self) -> str:
        return (
            f"{self.source}: {self.broker} refused the subscription {self.filter!r}: {self.cause}; "
            f"asking again {again(self.retry_in)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionDowngraded(MqttEvent):
    """The broker grants less than the QoS asked for."""

    name: ClassVar[str] = "mqtt.subscription.downgraded"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("source", "granted")
    attributes: ClassVar[Mapping[str, str]] = {"granted": "granted_qos"}

    filter: str
    asked: int
    granted: int

    def text(self) -> str:
        loss = "messages can be lost before they reach the gateway" if self.granted == 0 else "messages still arrive"
        return (
            f"{self.source}: {self.broker} grants QoS {self.granted} for {self.filter!r} where {self.asked} was asked; "
            f"{loss}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost(MqttEvent):
    """A reconnect found no session where there had been one: the broker dropped what it kept for us."""

    name: ClassVar[str] = "mqtt.session.lost"
    severity: ClassVar[Severity] = Severity.WARNING

    def text(self) -> str:
        return (
            f"{self.source}: {self.broker} no longer has the session of this client; messages it kept while the "
            "gateway was away are gone, subscribing anew"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionShortened(MqttEvent):
    """The broker keeps the session for less time than asked (MQTT 5.0 section 3.2.2.3.2).

    ``asked`` and ``granted`` are seconds.
    """

    name: ClassVar[str] = "mqtt.session.shortened"
    severity: ClassVar[Severity] = Severity.WARNING

    asked: int
    granted: int

    def text(self) -> str:
        return (
            f"{self.source}: {self.broker} keeps the session for {self.granted} s where session_expiry is "
            f"{self.asked} s; what it holds for a gateway that is away longer is lost"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded(MqttEvent):
    """QoS 0 messages that arrived while intake was stopped; the broker sends QoS 1 and 2 again later."""

    name: ClassVar[str] = "mqtt.discarded"
    severity: ClassVar[Severity] = Severity.WARNING
    labelled: ClassVar[tuple[str, ...]] = ("source", "reason")

    reason: str = "stopping"

    def text(self) -> str:
        return f"{self.source}: stopping; {self.count} QoS 0 message(s) that still arrived were discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesRedelivered(MqttEvent):
    """Redeliveries of messages that are still in hand, or through: recognised, not handed over twice."""

    name: ClassVar[str] = "messages.redelivered"
    severity: ClassVar[Severity] = Severity.DEBUG

    def text(self) -> str:
        return f"{self.source}: {self.broker} sent {self.count} message(s) again that are in hand; not forwarded twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesNacked(MqttEvent):
    """Messages that could not be handled. The broker still has them, and sends them again on a new connection."""

    name: ClassVar[str] = "messages.nacked"
    severity: ClassVar[Severity] = Severity.ERROR

    cause: str

    def text(self) -> str:
        return (
            f"{self.source}: {self.count} message(s) could not be handled: {self.cause}; "
            f"renewing the connection, so that {self.broker} sends them again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesLost(MqttEvent):
    """Messages that could not be handled and that the broker has no copy of: QoS 0, or its session was lost."""

    name: ClassVar[str] = "messages.lost"
    severity: ClassVar[Severity] = Severity.WARNING

    cause: str

    def text(self) -> str:
        return (
            f"{self.source}: {self.count} message(s) lost: {self.cause}; "
            f"{self.broker} has no copy (QoS 0, or no session)"
        )
