"""MQTT 5.0 on the mqtt5 package's codec."""

from __future__ import annotations

from enum import IntEnum

import mqtt5

from spanbridge.core.errors import SourceError
from spanbridge.core.message import Publish
from spanbridge.mqtt import salvage
from spanbridge.mqtt.connection import Accepted, Connection, Granted, Intake, now_ns
from spanbridge.mqtt.errors import LostError, PacketError, RefusedError, malformed, packet_too_large, protocol_error
from spanbridge.mqtt.framing import packet_size
from spanbridge.mqtt.options import MqttOptions, Subscription, Will
from spanbridge.mqtt.session import ReceiverSession, TopicAliases

_PUBLISH = 3
_MALFORMED = 0x81
_NOT_FOUND = 0x92
_ALIAS_INVALID = 0x94


class V5Connection(Connection):
    """The codec glue of MQTT 5.0: bytes to messages and back."""

    def __init__(self, options: MqttOptions, client_id: str, session: ReceiverSession, intake: Intake) -> None:
        super().__init__(options, client_id, session, intake)
        self._aliases = TopicAliases(options.topic_alias_maximum)

    def send_connect(self) -> None:
        clean_start = self.options.clean_start and self.session.epoch == 0
        self.write(connect_packet(self.options, self.client_id, clean_start=clean_start).write())

    def send_subscribe(self, subscription: Subscription, *, fresh: bool) -> int:
        # With a session the broker has the subscription already. Asking again mends one it lost or never had (the
        # configuration changed meanwhile); retain handling 1 keeps it from sending all retained messages once more.
        handling = max(subscription.retain_handling, 0 if fresh else 1)
        packet_id = self.next_packet_id()
        self.write(subscribe_packet(subscription, packet_id, retain_handling=handling).write())
        return packet_id

    def send_disconnect(self, code: int) -> None:
        # Without a Session Expiry Interval property the one of CONNECT stays in force (section 3.14.2.2.2).
        self.write(b"\xe0\x00" if code == 0 else bytes((0xE0, 0x01, code)))

    def decode(self, data: bytes) -> int:
        if not self.accepted.done():
            _check_first_packet(data)
        batch: list[Publish] = []
        try:
            return self._decode_all(data, batch)
        finally:
            self.hand_over(batch)

    def _decode_all(self, data: bytes, batch: list[Publish]) -> int:
        """The hot path: one pass over what the socket gave. Messages go to ``batch``."""
        read, is_publish, limit = mqtt5.read, mqtt5.PublishPacket, self.options.maximum_packet_size
        received_ns = now_ns()
        view = memoryview(data)
        position, end = 0, len(data)
        careful = self.intake.careful
        while position < end:
            try:
                if end - position > salvage.MAX_PROPERTIES:
                    salvage.check_size(data, position)
                if careful:
                    _check_strings(data, position)
                packet, size = read(view[position:])
            except BaseException as error:  # noqa: BLE001 - the codec's panics; what is foreign is raised again
                fault = self._fault(error)
                size = packet_size(data, position)
                if not 0 < size <= end - position:
                    break
                batch += self._salvage(fault, data[position : position + size], received_ns)
                position += size
                careful = self.intake.careful
                continue
            if size > limit:
                raise packet_too_large(size, limit)
            if type(packet) is is_publish:
                publish = self._publish(packet, data[position], received_ns)
                if publish is not None:
                    batch.append(publish)
            else:
                self._control(packet)
                if self.ending:
                    return end
            position += size
        return position

    def _publish(self, packet: mqtt5.PublishPacket, head: int, received_ns: int) -> Publish | None:
        """The message, or None when it is not to be delivered. ``head`` is the packet's first byte (section 3.3.1)."""
        topic = packet.topic
        alias = packet.topic_alias
        if alias is not None:
            topic = self._resolve(alias, topic)
        qos = head >> 1 & 3
        packet_id = 0
        if qos or not self.intake.open:
            packet_id = packet.packet_id or 0
            if not self.take(qos, packet_id, dup=head & 8 != 0):
                return None
        return Publish(
            topic,
            packet.payload,
            qos,
            head & 1 != 0,
            head & 8 != 0,
            packet.user_properties,
            packet.content_type,
            packet.response_topic,
            packet.correlation_data,
            packet.message_expiry_interval,
            received_ns,
            self.session.epoch,
            packet_id,
        )

    def _salvage(self, fault: PacketError, packet: bytes, received_ns: int) -> list[Publish]:
        """A whole packet that does not decode, as a message to be refused; none when it is not to be delivered.

        :raises PacketError: it cannot be told whose acknowledgement it wants, or the fault is the broker's own.
        """
        if len(packet) > self.options.maximum_packet_size:
            raise packet_too_large(len(packet), self.options.maximum_packet_size)
        head = packet[0]
        parts = salvage.split(packet) if head >> 4 == _PUBLISH and fault.code == _MALFORMED else None
        if parts is None:
            raise fault from None
        self._aliases.forget()
        qos, dup = head >> 1 & 3, head & 8 != 0
        if not self.take(qos, parts.packet_id, dup=dup):
            return []
        topic = parts.topic.decode(errors="backslashreplace")
        message = Publish(topic, parts.payload, qos, head & 1 != 0, dup, fault=str(fault))
        message.received_ns, message.epoch, message.packet_id = received_ns, self.session.epoch, parts.packet_id
        return [message]

    def _fault(self, error: BaseException) -> PacketError:
        """What the codec found, or we did before it, in our terms."""
        if isinstance(error, PacketError):
            return error
        if isinstance(error, IndexError):
            return malformed("its fields exceed its length")
        # mqtt5 0.8 panics over strings that are not UTF-8, loudly, and pyo3 makes that a BaseException. Once is enough.
        if isinstance(error, UnicodeDecodeError) or type(error).__module__ == "pyo3_runtime":
            self.intake.careful = True
            return malformed("a string is not UTF-8")
        if isinstance(error, ValueError):
            return _undecodable(error)
        raise error

    def _resolve(self, alias: int, topic: str) -> str:
        try:
            resolved = self._aliases.resolve(alias, topic)
        except ValueError as error:
            raise protocol_error(str(error), code=_ALIAS_INVALID) from None
        if resolved is None:
            raise protocol_error(f"topic alias {alias} was never given a topic")
        return resolved

    def _control(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.PubRelPacket():
                self.on_pubrel(packet.packet_id)
            case mqtt5.PingRespPacket() | mqtt5.UnsubAckPacket():
                pass
            case mqtt5.SubAckPacket():
                self.on_suback(packet.packet_id, _granted(packet))
            case mqtt5.ConnAckPacket() if not self.accepted.done():
                self._connack(packet)
            case mqtt5.DisconnectPacket():
                self.fail(_ended(self.peer, packet))
            case _:
                raise protocol_error(f"unexpected {type(packet).__name__.removesuffix('Packet').upper()}")

    def _connack(self, packet: mqtt5.ConnAckPacket) -> None:
        if packet.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            said = _words(packet.reason_code, packet.reason_str, packet.server_reference)
            self.fail(RefusedError(f"{self.peer} refused the connection: {said}", reason=_reason(packet.reason_code)))
            return
        options = self.options
        keep_alive = packet.server_keep_alive
        expiry = packet.session_expiry_interval
        self.on_connack(
            Accepted(
                session_present=packet.session_present,
                client_id=packet.assigned_client_id or self.client_id,
                keep_alive=options.keep_alive if keep_alive is None else keep_alive,
                session_expiry=options.session_expiry if expiry is None else expiry,
                maximum_packet_size=packet.max_packet_size,
                wildcards=packet.wildcard_subscription_available,
                shared=packet.shared_subscription_available,
            )
        )

    def pubcomp(self, packet_id: int, *, known: bool) -> bytes:
        if known:
            return (0x70_02_0000 | packet_id).to_bytes(4, "big")
        return (0x70_03_0000_00 | packet_id << 8 | _NOT_FOUND).to_bytes(5, "big")


def check(options: MqttOptions) -> None:
    """Encode once what will be sent, so that a value that MQTT cannot carry is found at the start.

    :raises SourceError: it cannot be encoded.
    """
    try:
        connect_packet(options, options.client_id, clean_start=options.clean_start).write()
        for subscription in options.subscriptions:
            subscribe_packet(subscription, 1, retain_handling=subscription.retain_handling).write()
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{options.name}: {error}", reason="config") from None


def connect_packet(options: MqttOptions, client_id: str, *, clean_start: bool) -> mqtt5.ConnectPacket:
    """CONNECT (section 3.1)."""
    return mqtt5.ConnectPacket(
        client_id,
        username=options.username,
        password=None if options.password is None else options.password.encode(),
        clean_start=clean_start,
        will=None if options.will is None else _will(options.will),
        keep_alive=options.keep_alive,
        session_expiry_interval=options.session_expiry,
        receive_max=options.receive_maximum,
        topic_alias_max=options.topic_alias_maximum,
        max_packet_size=options.maximum_packet_size,
    )


def subscribe_packet(subscription: Subscription, packet_id: int, *, retain_handling: int) -> mqtt5.SubscribePacket:
    """SUBSCRIBE for one filter (section 3.8)."""
    topic_filter = mqtt5.TopicFilter(
        subscription.wire_filter,
        max_qos=mqtt5.QoS(subscription.qos),
        no_local=subscription.no_local and subscription.share is None,
        retain_as_published=subscription.retain_as_published,
        retain_handling=mqtt5.RetainHandling(retain_handling),
    )
    return mqtt5.SubscribePacket(packet_id, [topic_filter])


def _will(will: Will) -> mqtt5.Will:
    return mqtt5.Will(
        will.topic,
        payload=will.payload,
        qos=mqtt5.QoS(will.qos),
        retain=will.retain,
        will_delay_interval=will.delay,
    )


def _check_first_packet(data: bytes) -> None:
    """The broker's first packet is CONNACK (MQTT-3.2.0-1), or DISCONNECT, which leaves no doubt either."""
    kind = data[0] >> 4
    if kind not in {2, 14}:
        raise protocol_error(f"packet type {kind} before CONNACK")
    if data[:2] == b"\x20\x02":  # the v5 form has a property length and so three bytes or more
        raise RefusedError(
            'the broker answers in MQTT 3.1.1: set version = "3.1.1" for this connection',
            reason="unsupported_protocol_version",
        )


def _check_strings(data: bytes, position: int) -> None:
    if data[position] >> 4 == _PUBLISH:
        size = packet_size(data, position)
        if 0 < size <= len(data) - position:
            salvage.check_strings(data[position : position + size])


def _undecodable(error: ValueError) -> PacketError:
    text = str(error)
    if "alias" in text.lower():
        return protocol_error(text, code=_ALIAS_INVALID)
    return malformed(text)


def _granted(packet: mqtt5.SubAckPacket) -> Granted:
    if len(packet.reason_codes) != 1:
        raise protocol_error(f"SUBACK with {len(packet.reason_codes)} reason codes for one filter")
    code = packet.reason_codes[0]
    if int(code) < 0x80:  # the codec's enumerations only look like IntEnum: they compare for equality alone
        return Granted(int(code))
    return Granted(None, _reason(code), _words(code, packet.reason_str, None))


def _ended(peer: str, packet: mqtt5.DisconnectPacket) -> LostError:
    code = packet.reason_code
    said = _words(code, packet.reason_str, packet.server_reference)
    hint = ": another client connected with this client id" if code == 0x8E else ""
    return LostError(f"{peer} ended the connection: {said}{hint}", reason=_reason(code))


def _reason(code: IntEnum) -> str:
    return code.name.lower()


def _words(code: IntEnum, said: str | None, elsewhere: str | None) -> str:
    """A reason code for people, with what the broker added. The broker's text is quoted, so it stays one line."""
    text = f"{code.name.lower().replace('_', ' ')} (0x{int(code):02X})"
    if said:
        text += f", it says {said[:200]!r}"
    if elsewhere:
        text += f", it names {elsewhere[:200]!r} instead"
    return text
