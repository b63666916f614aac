"""What MQTT 5.0 and 3.1.1 say differently: the packets that a source writes, and what the broker's answers mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from spanbridge.mqtt.codec import v5, v311
from spanbridge.mqtt.codec.packets import (
    NO_PROPERTIES,
    ConnackPacket,
    ConnectPacket,
    DisconnectPacket,
    FilterOptions,
    PubcompPacket,
    PubrelPacket,
    SubackPacket,
    SubscribePacket,
    UnsubscribePacket,
    WillPacket,
)
from spanbridge.mqtt.errors import LostError, RefusedError, protocol_error
from spanbridge.mqtt.options import MqttOptions, Subscription

_NOT_FOUND = 0x92
_TAKEN_OVER = 0x8E
_REFUSALS = {  # 3.1.1 section 3.2.2.3, with the words of MQTT 5.0's reason codes for the same
    1: ("unsupported_protocol_version", 'it does not speak MQTT 3.1.1: set version = "5" for this connection'),
    2: ("client_id_not_valid", "the client identifier is not allowed"),
    3: ("server_unavailable", "the server is unavailable"),
    4: ("bad_user_name_or_password", "bad user name or password"),
    5: ("not_authorized", "not authorised"),
}


@dataclass(slots=True)
class Accepted:
    """What the broker said when it accepted the connection (CONNACK)."""

    session_present: bool
    client_id: str
    keep_alive: int
    maximum_packet_size: int | None = None
    receive_maximum: int = 0xFFFF
    maximum_qos: int = 2
    retain: bool = True
    topic_alias_maximum: int = 0
    wildcards: bool = True
    shared: bool = True
    session_expiry: int | None = None
    lost: int = 0
    """Nacked messages that went with the broker's session."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The broker's answer to one SUBSCRIBE: ``qos`` or, when refused, ``reason`` (a word) and ``cause``."""

    qos: int | None
    reason: str = ""
    cause: str = ""


class Version(ABC):
    """One protocol version. Stateless."""

    v5: bool

    @abstractmethod
    def connect(self, options: MqttOptions, client_id: str, *, clean_start: bool) -> bytes:
        """CONNECT.

        :raises ValueError: an option does not fit into it.
        """

    @abstractmethod
    def subscribe(self, subscription: Subscription, packet_id: int, *, fresh: bool) -> bytes:
        """SUBSCRIBE for one filter. ``fresh``: the broker has no session of ours."""

    @abstractmethod
    def unsubscribe(self, wire_filter: str, packet_id: int) -> bytes:
        """UNSUBSCRIBE for one filter."""

    @abstractmethod
    def disconnect(self, code: int, *, forget: bool = False) -> bytes:
        """DISCONNECT, empty where the version has no form for this reason code.

        ``forget``: the broker need not keep the session, which 3.1.1 cannot say.
        """

    @abstractmethod
    def unknown_pubrel(self, packet_id: int) -> bytes:
        """PUBREL for a PUBREC that answers no message of ours, so that the broker may forget it."""

    @abstractmethod
    def pubcomp(self, packet_id: int, *, known: bool) -> bytes:
        """PUBCOMP; ``known`` false when no such message is waiting for its PUBREL."""

    @abstractmethod
    def check_first(self, data: bytes) -> None:
        """See that what the broker sends first can be the beginning of an answer to CONNECT.

        :raises SourceError: it cannot.
        """

    @abstractmethod
    def accepted(self, packet: ConnackPacket, options: MqttOptions, client_id: str) -> Accepted:
        """What CONNACK says.

        :raises RefusedError: that we are refused.
        """

    @abstractmethod
    def granted(self, packet: SubackPacket) -> Granted:
        """What SUBACK says of a single filter.

        :raises PacketError: it speaks of several.
        """

    @abstractmethod
    def ended(self, packet: DisconnectPacket, peer: str) -> LostError:
        """Why the broker ends the connection.

        :raises PacketError: it must not say so in this version.
        """


class Version5(Version):
    """MQTT 5.0."""

    v5 = True

    def connect(self, options: MqttOptions, client_id: str, *, clean_start: bool) -> bytes:
        will = options.will
        password = None if options.password is None else options.password.encode()
        properties = {
            "session_expiry_interval": options.session_expiry,
            "receive_maximum": options.receive_maximum,
            "topic_alias_maximum": options.topic_alias_maximum,
            "maximum_packet_size": options.maximum_packet_size,
        }
        packet_will = None
        if will is not None:
            delay: dict[str, Any] = {"will_delay_interval": will.delay}
            packet_will = WillPacket(will.topic, will.payload, will.qos, will.retain, delay)
        return v5.encode(
            ConnectPacket(
                client_id, clean_start, options.keep_alive, options.username, password, packet_will, properties
            )
        )

    def subscribe(self, subscription: Subscription, packet_id: int, *, fresh: bool) -> bytes:
        # With a session the broker has the subscription already. Asking again mends one it lost or never had (the
        # configuration changed meanwhile); retain handling 1 keeps it from sending all retained messages once more.
        wanted = FilterOptions(
            subscription.wire_filter,
            subscription.qos,
            subscription.no_local and subscription.share is None,
            subscription.retain_as_published,
            max(subscription.retain_handling, 0 if fresh else 1),
        )
        return v5.encode(SubscribePacket(packet_id, (wanted,)))

    def unsubscribe(self, wire_filter: str, packet_id: int) -> bytes:
        return v5.encode(UnsubscribePacket(packet_id, (wire_filter,)))

    def disconnect(self, code: int, *, forget: bool = False) -> bytes:
        # Without a Session Expiry Interval property the one of CONNECT stays in force (section 3.14.2.2.2).
        return v5.encode(DisconnectPacket(code, {"session_expiry_interval": 0} if forget else NO_PROPERTIES))

    def unknown_pubrel(self, packet_id: int) -> bytes:
        return v5.encode(PubrelPacket(packet_id, _NOT_FOUND))

    def pubcomp(self, packet_id: int, *, known: bool) -> bytes:
        return v5.encode(PubcompPacket(packet_id, 0 if known else _NOT_FOUND))

    def check_first(self, data: bytes) -> None:
        """The broker's first packet is CONNACK (MQTT-3.2.0-1), or DISCONNECT, which leaves no doubt either."""
        kind = data[0] >> 4
        if kind not in {2, 14}:
            raise protocol_error(f"packet type {kind} before CONNACK")
        if data[:2] == b"\x20\x02":  # the v5 form has a property length and so three bytes or more
            raise RefusedError(
                'the broker answers in MQTT 3.1.1: set version = "3.1.1" for this connection',
                reason="unsupported_protocol_version",
            )

    def accepted(self, packet: ConnackPacket, options: MqttOptions, client_id: str) -> Accepted:
        if packet.code:
            said = _words(packet.code, packet.properties)
            raise RefusedError(f"{options.broker} refused the connection: {said}", reason=_reason(packet.code))
        get = packet.properties.get
        return Accepted(
            session_present=packet.session_present,
            client_id=get("assigned_client_identifier") or client_id,
            keep_alive=get("server_keep_alive", options.keep_alive),
            session_expiry=get("session_expiry_interval", options.session_expiry),
            maximum_packet_size=get("maximum_packet_size"),
            receive_maximum=get("receive_maximum", 0xFFFF),
            maximum_qos=get("maximum_qos", 2),
            retain=get("retain_available", 1) == 1,
            topic_alias_maximum=get("topic_alias_maximum", 0),
            wildcards=get("wildcard_subscription_available", 1) == 1,
            shared=get("shared_subscription_available", 1) == 1,
        )

    def granted(self, packet: SubackPacket) -> Granted:
        code = _single(packet)
        if code < 0x80:
            return Granted(code)
        return Granted(None, _reason(code), _words(code, packet.properties))

    def ended(self, packet: DisconnectPacket, peer: str) -> LostError:
        said = _words(packet.code, packet.properties)
        hint = ": another client connected with this client id" if packet.code == _TAKEN_OVER else ""
        return LostError(f"{peer} ended the connection: {said}{hint}", reason=_reason(packet.code))


class Version311(Version):
    """MQTT 3.1.1."""

    v5 = False

    def connect(self, options: MqttOptions, client_id: str, *, clean_start: bool) -> bytes:
        # A clean session cannot be resumed: what we are asked for holds for every connection.
        will = options.will
        password = None if options.password is None else options.password.encode()
        packet_will = None if will is None else WillPacket(will.topic, will.payload, will.qos, will.retain)
        return v311.encode(
            ConnectPacket(client_id, options.clean_start, options.keep_alive, options.username, password, packet_will)
        )

    def subscribe(self, subscription: Subscription, packet_id: int, *, fresh: bool) -> bytes:
        return v311.encode(SubscribePacket(packet_id, (FilterOptions(subscription.wire_filter, subscription.qos),)))

    def unsubscribe(self, wire_filter: str, packet_id: int) -> bytes:
        return v311.encode(UnsubscribePacket(packet_id, (wire_filter,)))

    def disconnect(self, code: int, *, forget: bool = False) -> bytes:
        # 3.1.1 has no reason codes: DISCONNECT means all is well, and errors just close (section 4.8)
        return b"" if code else v311.encode(DisconnectPacket())

    def unknown_pubrel(self, packet_id: int) -> bytes:
        return v311.encode(PubrelPacket(packet_id))

    def pubcomp(self, packet_id: int, *, known: bool) -> bytes:
        return v311.encode(PubcompPacket(packet_id))

    def check_first(self, data: bytes) -> None:
        """The broker's first packet is CONNACK (MQTT-3.2.0-1)."""
        if data[0] != 0x20:
            raise protocol_error(f"packet type {data[0] >> 4} before CONNACK")

    def accepted(self, packet: ConnackPacket, options: MqttOptions, client_id: str) -> Accepted:
        if packet.code:
            reason, words = _REFUSALS.get(packet.code, ("unspecified_error", f"return code {packet.code}"))
            raise RefusedError(f"{options.broker} refused the connection: {words}", reason=reason)
        return Accepted(packet.session_present, client_id, options.keep_alive)

    def granted(self, packet: SubackPacket) -> Granted:
        code = _single(packet)
        if code < 0x80:
            return Granted(code)
        # 0x80 is all that 3.1.1 can say (section 3.9.3)
        return Granted(None, "refused", "no reason given, as MQTT 3.1.1 has none (0x80)")

    def ended(self, packet: DisconnectPacket, peer: str) -> LostError:
        raise protocol_error("unexpected DISCONNECT")


def _single(packet: SubackPacket) -> int:
    if len(packet.codes) != 1:
        raise protocol_error(f"SUBACK with {len(packet.codes)} reason codes for one filter")
    code = packet.codes[0]
    if 2 < code < 0x80:
        raise protocol_error(f"SUBACK with reason code 0x{code:02X}")
    return code


def _reason(code: int) -> str:
    return v5.REASONS.get(code, "unspecified_error")


def _words(code: int, properties: Any) -> str:
    """A reason code for people, with what the broker added. The broker's text is quoted, so it stays one line."""
    name = "normal_disconnection" if code == 0 else v5.REASONS.get(code, "unknown_reason")
    text = f"{name.replace('_', ' ')} (0x{code:02X})"
    said, elsewhere = properties.get("reason_string"), properties.get("server_reference")
    if said:
        text += f", it says {said[:200]!r}"
    if elsewhere:
        text += f", it names {elsewhere[:200]!r} instead"
    return text
