"""Control packets that differ between the versions only in whether there are properties and codes.

``v5`` says which version is meant. PUBLISH is decoded elsewhere: it is the hot path.
"""

from __future__ import annotations

from collections.abc import Callable

from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import properties as kinds
from spanbridge.mqtt.codec.packets import (
    NO_PROPERTIES,
    AuthPacket,
    ConnackPacket,
    ConnectPacket,
    DisconnectPacket,
    FilterOptions,
    Packet,
    PingreqPacket,
    PingrespPacket,
    Properties,
    PubackPacket,
    PubcompPacket,
    PubrecPacket,
    PubrelPacket,
    SubackPacket,
    SubscribePacket,
    UnsubackPacket,
    UnsubscribePacket,
    WillPacket,
)
from spanbridge.mqtt.codec.properties import MAX_PROPERTIES, decode_properties, encode_properties
from spanbridge.mqtt.codec.wire import Cursor, binary, packet, text
from spanbridge.mqtt.errors import malformed, protocol_error

_NAMES = (
    "", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
    "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip
_FLAGS = {kinds.PUBREL: 2, kinds.SUBSCRIBE: 2, kinds.UNSUBSCRIBE: 2}
_ANSWERS: dict[int, Callable[[int, int, Properties], Packet]] = {
    kinds.PUBACK: PubackPacket,
    kinds.PUBREC: PubrecPacket,
    kinds.PUBREL: PubrelPacket,
    kinds.PUBCOMP: PubcompPacket,
}
_CODES = {PubackPacket: 0x40, PubrecPacket: 0x50, PubrelPacket: 0x62, PubcompPacket: 0x70}


def decode_control(data: bytes, start: int, body: int, end: int, *, v5: bool) -> Packet:
    """Any packet but PUBLISH. It begins at ``start``, what follows its fixed header at ``body``.

    :raises PacketError: it is malformed or against the protocol; the text names packet and field.
    """
    kind, flags = data[start] >> 4, data[start] & 15
    if kind == 0 or (kind == kinds.AUTH and not v5):
        raise malformed(f"packet type {kind}")
    name = _NAMES[kind]
    if flags != _FLAGS.get(kind, 0):
        raise malformed(f"{name}: flags are 0x{flags:X}")
    if end - body > MAX_PROPERTIES:
        text_ = f"{end - body} bytes of properties, where {MAX_PROPERTIES} are the most that is taken"
        raise malformed(f"{name}: {text_}")
    cursor = Cursor(data, body, end, name)
    decoded = _decode(cursor, kind, v5=v5)
    cursor.finish()
    return decoded


def _decode(cursor: Cursor, kind: int, *, v5: bool) -> Packet:  # noqa: PLR0911 - one a packet type
    if kind in _ANSWERS:
        packet_id = cursor.packet_id()
        code, properties = _code(cursor, kind, v5=v5)
        return _ANSWERS[kind](packet_id, code, properties)
    if kind == kinds.PINGREQ:
        return PingreqPacket()
    if kind == kinds.PINGRESP:
        return PingrespPacket()
    if kind == kinds.DISCONNECT:
        return DisconnectPacket(*_code(cursor, kind, v5=v5))
    if kind == kinds.AUTH:
        return AuthPacket(*_code(cursor, kind, v5=v5))
    if kind == kinds.CONNACK:
        return _connack(cursor, v5=v5)
    if kind == kinds.CONNECT:
        return _connect(cursor, v5=v5)
    return _subscriptions(cursor, kind, v5=v5)


def _code(cursor: Cursor, kind: int, *, v5: bool) -> tuple[int, Properties]:
    """A reason code and properties, both of which may be left out in MQTT 5.0 (sections 3.4.2.1, 3.14.2.1)."""
    if not v5 or not cursor.left:
        return 0, NO_PROPERTIES
    code = cursor.integer(1, "reason code")
    return code, decode_properties(cursor, kind) if cursor.left else NO_PROPERTIES


def _properties(cursor: Cursor, kind: int, *, v5: bool) -> Properties:
    return decode_properties(cursor, kind) if v5 else NO_PROPERTIES


def _connack(cursor: Cursor, *, v5: bool) -> ConnackPacket:
    flags = cursor.integer(1, "flags")
    if flags > 1:
        raise cursor.error("flags", f"are 0x{flags:02X}")
    code = cursor.integer(1, "reason code" if v5 else "return code")
    return ConnackPacket(bool(flags), code, _properties(cursor, kinds.CONNACK, v5=v5))


def _subscriptions(cursor: Cursor, kind: int, *, v5: bool) -> Packet:
    packet_id = cursor.packet_id()
    properties = _properties(cursor, kind, v5=v5)
    if kind in (kinds.SUBACK, kinds.UNSUBACK):
        codes = tuple(cursor.take(cursor.left, "codes")) if v5 or kind == kinds.SUBACK else ()
        if kind == kinds.SUBACK and not codes:
            raise protocol_error("SUBACK without a code")
        return (SubackPacket if kind == kinds.SUBACK else UnsubackPacket)(packet_id, codes, properties)
    if not cursor.left:
        raise protocol_error(f"{cursor.place} without a filter")
    if kind == kinds.UNSUBSCRIBE:
        names = []
        while cursor.left:
            names.append(cursor.text("filter"))
        return UnsubscribePacket(packet_id, tuple(names), properties)
    filters = []
    while cursor.left:
        filters.append(_filter(cursor, v5=v5))
    return SubscribePacket(packet_id, tuple(filters), properties)


def _filter(cursor: Cursor, *, v5: bool) -> FilterOptions:
    name, options = cursor.text("filter"), cursor.integer(1, "options")
    if options & 3 == 3 or options & (0xC0 if v5 else 0xFC) or options & 0x30 == 0x30:
        raise cursor.error("options", f"are 0x{options:02X}")
    return FilterOptions(name, options & 3, bool(options & 4), bool(options & 8), options >> 4)


def _connect(cursor: Cursor, *, v5: bool) -> ConnectPacket:
    name, level = cursor.text("protocol name"), cursor.integer(1, "protocol level")
    if name != "MQTT" or level != (5 if v5 else 4):
        raise protocol_error(f"CONNECT: protocol {name[:20]!r}, level {level}", code=0x84)
    flags, keep_alive = cursor.integer(1, "flags"), cursor.integer(2, "keep alive")
    will_flags = flags & 0x38
    if flags & 1 or flags & 0x18 == 0x18 or (will_flags and not flags & 4) or (not v5 and flags & 0xC0 == 0x40):
        raise cursor.error("flags", f"are 0x{flags:02X}")
    properties = _properties(cursor, kinds.CONNECT, v5=v5)
    client_id = cursor.text("client identifier")
    will = None
    if flags & 4:
        of_will = _properties(cursor, kinds.WILL, v5=v5)
        topic, payload = cursor.text("will topic"), cursor.binary("will payload")
        will = WillPacket(topic, payload, flags >> 3 & 3, bool(flags & 0x20), of_will)
    username = cursor.text("user name") if flags & 0x80 else None
    password = cursor.binary("password") if flags & 0x40 else None
    return ConnectPacket(client_id, bool(flags & 2), keep_alive, username, password, will, properties)


def encode_control(value: Packet, *, v5: bool) -> bytes:  # noqa: C901, PLR0911 - one case a packet type
    """The bytes of any packet but PUBLISH.

    :raises ValueError: a field does not fit.
    """
    match value:
        case PubackPacket() | PubrecPacket() | PubrelPacket() | PubcompPacket():
            body = value.packet_id.to_bytes(2, "big") + _tail(value.code, value.properties, v5=v5)
            return packet(_CODES[type(value)], body)
        case ConnectPacket():
            return packet(0x10, _connect_body(value, v5=v5))
        case ConnackPacket():
            return packet(0x20, bytes((value.session_present, value.code)) + _own(value.properties, v5=v5))
        case SubscribePacket():
            filters = b"".join(text(entry.filter) + bytes((_options(entry),)) for entry in value.filters)
            return packet(0x82, value.packet_id.to_bytes(2, "big") + _own(value.properties, v5=v5) + filters)
        case UnsubscribePacket():
            names = b"".join(text(name) for name in value.filters)
            return packet(0xA2, value.packet_id.to_bytes(2, "big") + _own(value.properties, v5=v5) + names)
        case SubackPacket():
            return packet(0x90, value.packet_id.to_bytes(2, "big") + _own(value.properties, v5=v5) + bytes(value.codes))
        case UnsubackPacket():
            codes = bytes(value.codes) if v5 else b""
            return packet(0xB0, value.packet_id.to_bytes(2, "big") + _own(value.properties, v5=v5) + codes)
        case PingreqPacket():
            return b"\xc0\x00"
        case PingrespPacket():
            return b"\xd0\x00"
        case DisconnectPacket():
            return packet(0xE0, _tail(value.code, value.properties, v5=v5))
        case AuthPacket():
            return packet(0xF0, _tail(value.code, value.properties, v5=True))


def _own(properties: Properties, *, v5: bool) -> bytes:
    return encode_properties(properties) if v5 else b""


def _tail(code: int, properties: Properties, *, v5: bool) -> bytes:
    """Reason code and properties, as short as may be."""
    if not v5 or (not code and not properties):
        return b""
    return bytes((code,)) + (encode_properties(properties) if properties else b"")


def _options(entry: FilterOptions) -> int:
    return entry.qos | entry.no_local << 2 | entry.retain_as_published << 3 | entry.retain_handling << 4


def _connect_body(value: ConnectPacket, *, v5: bool) -> bytes:
    will = value.will
    flags = value.clean_start << 1
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    flags |= (value.password is not None) << 6 | (value.username is not None) << 7
    out = bytearray(b"\x00\x04MQTT" + bytes((5 if v5 else 4, flags)) + value.keep_alive.to_bytes(2, "big"))
    out += _own(value.properties, v5=v5) + text(value.client_id)
    if will is not None:
        out += _own(will.properties, v5=v5) + text(will.topic) + binary(will.payload)
    if value.username is not None:
        out += text(value.username)
    if value.password is not None:
        out += binary(value.password)
    return bytes(out)


def encode_publish(
    message: Publish, packet_id: int = 0, *, v5: bool, dup: bool = False, topic_alias: int | None = None
) -> bytes:
    """PUBLISH (section 3.3). ``packet_id`` is 0 for QoS 0. In 3.1.1 the fields of MQTT 5.0 are left out.

    :raises ValueError: a field does not fit.
    """
    qos = message.qos
    if bool(qos) is not bool(packet_id):
        raise ValueError(f"QoS {qos} with packet identifier {packet_id}")
    body = bytearray(text(message.topic))
    if qos:
        body += packet_id.to_bytes(2, "big")
    if v5:
        fields = {
            "payload_format_indicator": message.payload_format,
            "message_expiry_interval": message.expiry,
            "topic_alias": topic_alias,
            "response_topic": message.response_topic,
            "correlation_data": message.correlation_data,
            "user_property": message.user_properties,
            "content_type": message.content_type,
        }
        body += encode_properties(fields)
    body += message.payload
    return packet(0x30 | dup << 3 | qos << 1 | message.retain, body)
