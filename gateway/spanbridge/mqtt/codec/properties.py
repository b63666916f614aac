"""Properties of MQTT 5.0 (section 2.2.2.2): which there are, where they may stand, and their bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

from spanbridge.mqtt.codec.packets import NO_PROPERTIES, Properties
from spanbridge.mqtt.codec.wire import Cursor, binary, text, variable
from spanbridge.mqtt.errors import malformed, protocol_error

MAX_PROPERTIES = 256 * 1024
"""Bytes of properties in one packet that are decoded. RocketMQ takes 16 KiB; the strings that are forwarded, or read
for a context, have room. The largest packet may hold three million properties: 240 MiB once decoded, and seconds of
work, from one message of one device, which the broker would send again to the process that starts after it."""

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH, WILL = range(10, 17)

_FLAG, _BYTE, _TWO, _FOUR, _VARIABLE, _TEXT, _BINARY, _PAIR = range(8)
_SIZES = {_FLAG: 1, _BYTE: 1, _TWO: 2, _FOUR: 4}


class _Property(NamedTuple):
    code: int
    name: str
    form: int
    packets: frozenset[int]
    positive: bool = False


def _of(code: int, name: str, form: int, *packets: int, positive: bool = False) -> _Property:
    return _Property(code, name, form, frozenset(packets), positive)


_ANSWERS = (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK)
_ALL = (
    _of(0x01, "payload_format_indicator", _FLAG, PUBLISH, WILL),
    _of(0x02, "message_expiry_interval", _FOUR, PUBLISH, WILL),
    _of(0x03, "content_type", _TEXT, PUBLISH, WILL),
    _of(0x08, "response_topic", _TEXT, PUBLISH, WILL),
    _of(0x09, "correlation_data", _BINARY, PUBLISH, WILL),
    _of(0x0B, "subscription_identifier", _VARIABLE, PUBLISH, SUBSCRIBE, positive=True),
    _of(0x11, "session_expiry_interval", _FOUR, CONNECT, CONNACK, DISCONNECT),
    _of(0x12, "assigned_client_identifier", _TEXT, CONNACK),
    _of(0x13, "server_keep_alive", _TWO, CONNACK),
    _of(0x15, "authentication_method", _TEXT, CONNECT, CONNACK, AUTH),
    _of(0x16, "authentication_data", _BINARY, CONNECT, CONNACK, AUTH),
    _of(0x17, "request_problem_information", _FLAG, CONNECT),
    _of(0x18, "will_delay_interval", _FOUR, WILL),
    _of(0x19, "request_response_information", _FLAG, CONNECT),
    _of(0x1A, "response_information", _TEXT, CONNACK),
    _of(0x1C, "server_reference", _TEXT, CONNACK, DISCONNECT),
    _of(0x1F, "reason_string", _TEXT, CONNACK, *_ANSWERS, DISCONNECT, AUTH),
    _of(0x21, "receive_maximum", _TWO, CONNECT, CONNACK, positive=True),
    _of(0x22, "topic_alias_maximum", _TWO, CONNECT, CONNACK),
    _of(0x23, "topic_alias", _TWO, PUBLISH, positive=True),
    _of(0x24, "maximum_qos", _FLAG, CONNACK),
    _of(0x25, "retain_available", _FLAG, CONNACK),
    _of(
        0x26, "user_property", _PAIR, CONNECT, CONNACK, PUBLISH, *_ANSWERS, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH,
        WILL,
    ),
    _of(0x27, "maximum_packet_size", _FOUR, CONNECT, CONNACK, positive=True),
    _of(0x28, "wildcard_subscription_available", _FLAG, CONNACK),
    _of(0x29, "subscription_identifier_available", _FLAG, CONNACK),
    _of(0x2A, "shared_subscription_available", _FLAG, CONNACK),
)  # fmt: skip
BY_CODE = {entry.code: entry for entry in _ALL}
BY_NAME = {entry.name: entry for entry in _ALL}


def decode_properties(cursor: Cursor, packet: int) -> Properties:
    """The properties that begin at the cursor with their length. ``packet`` is the packet's type, or ``WILL``.

    :raises PacketError: they do not decode, one may not stand in this packet, or stands there twice.
    """
    size = cursor.variable("properties' length")
    if not size:
        return NO_PROPERTIES
    if size > MAX_PROPERTIES:
        raise malformed(f"{size} bytes of properties, where {MAX_PROPERTIES} are the most that is taken")
    if size > cursor.left:
        raise cursor.error("properties", "do not fit into the packet")
    inner = Cursor(cursor.data, cursor.position, cursor.position + size, cursor.place)
    cursor.position = inner.end
    found: dict[str, Any] = {}
    while inner.left:
        code = inner.variable("property")
        known = BY_CODE.get(code)
        if known is None or packet not in known.packets:
            raise inner.error("property", f"0x{code:02X} may not stand there")
        value = _decode(inner, known)
        if known.form == _PAIR or (known.form == _VARIABLE and packet == PUBLISH):
            found.setdefault(known.name, []).append(value)
        elif known.name in found:
            raise protocol_error(f"{inner.place}: {known.name} twice")
        else:
            found[known.name] = (value,) if known.form == _VARIABLE else value
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _decode(cursor: Cursor, known: _Property) -> Any:
    name, form = known.name, known.form
    if form == _PAIR:
        return cursor.text(name), cursor.text(name)
    if form == _TEXT:
        return cursor.text(name)
    if form == _BINARY:
        return cursor.binary(name)
    value = cursor.variable(name) if form == _VARIABLE else cursor.integer(_SIZES[form], name)
    if (known.positive and not value) or (form == _FLAG and value > 1):
        raise protocol_error(f"{cursor.place}: {name} is {value}")
    return value


def encode_properties(properties: Properties) -> bytes:
    """Properties with their length in front. Those that are None are left out.

    :raises ValueError: a value does not fit.
    """
    out = bytearray()
    for name, value in properties.items():
        known = BY_NAME[name]
        if value is None:
            continue
        many = known.form in (_PAIR, _VARIABLE)
        for item in value if many else (value,):
            out.append(known.code)
            out += _encode(known.form, item)
    return variable(len(out)) + out


def _encode(form: int, value: Any) -> bytes:
    if form == _PAIR:
        return text(value[0]) + text(value[1])
    if form == _TEXT:
        return text(value)
    if form == _BINARY:
        return binary(value)
    if form == _VARIABLE:
        return variable(value)
    try:
        return int(value).to_bytes(_SIZES[form], "big")
    except OverflowError:
        raise ValueError(f"{value} does not fit into {_SIZES[form]} bytes") from None
