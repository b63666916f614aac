"""Properties of a PUBLISH (section 3.3.2.3), decoded in one loop: most of the work when a message has many."""

from __future__ import annotations

from spanbridge.mqtt.codec.properties import MAX_PROPERTIES
from spanbridge.mqtt.codec.wire import Cursor
from spanbridge.mqtt.errors import malformed, protocol_error

ALIAS_INVALID = 0x94


Fields = tuple[tuple[tuple[str, str], ...], str | None, str | None, bytes | None, int | None, int | None, int | None]
"""User properties, content type, response topic, correlation data, expiry, payload format, topic alias: a plain tuple,
since one with names takes longer to make than a property to decode."""

NO_FIELDS: Fields = ((), None, None, None, None, None, None)


def decode_fields(  # noqa: C901, PLR0912 - one loop on purpose: a call a property costs more than it explains
    data: bytes, position: int, end: int
) -> Fields:
    """The properties from ``position`` to ``end``. What is wrong with them is told only roughly.

    NUL is let through: a property that RocketMQ cannot carry costs the property and not the message.

    :raises PacketError: one is unknown, twice there, or does not fit; code 0x94 when the topic alias is.
    :raises UnicodeDecodeError: a string is not UTF-8.
    :raises IndexError: they are cut off.
    """
    user: list[tuple[str, str]] = []
    content_type = response_topic = correlation_data = expiry = payload_format = alias = None
    while position < end:
        code = data[position]
        start = position + 3
        if code == 0x26:
            middle = start + (data[position + 1] << 8 | data[position + 2])
            stop = middle + 2 + (data[middle] << 8 | data[middle + 1])
            if stop > end:
                break
            user.append((data[start:middle].decode(), data[middle + 2 : stop].decode()))
            position = stop
        elif code == 0x03 and content_type is None:
            position = start + (data[position + 1] << 8 | data[position + 2])
            content_type = data[start:position].decode()
        elif code == 0x09 and correlation_data is None:
            position = start + (data[position + 1] << 8 | data[position + 2])
            correlation_data = data[start:position]
        elif code == 0x08 and response_topic is None:
            position = start + (data[position + 1] << 8 | data[position + 2])
            response_topic = data[start:position].decode()
        elif code == 0x02 and expiry is None:
            expiry = int.from_bytes(data[position + 1 : position + 5], "big")
            position += 5
        elif code == 0x01 and payload_format is None and data[position + 1] < 2:
            payload_format = data[position + 1]
            position += 2
        elif code == 0x23:
            if alias is not None:
                raise protocol_error("PUBLISH: topic_alias twice", code=ALIAS_INVALID)
            alias = data[position + 1] << 8 | data[position + 2]
            position = start
        elif code == 0x0B:
            position = _subscription(data, position, end)
        else:
            break
    if position != end:
        raise malformed("PUBLISH: properties")
    return tuple(user), content_type, response_topic, correlation_data, expiry, payload_format, alias


def _subscription(data: bytes, position: int, end: int) -> int:
    """Skip a Subscription Identifier: we subscribe without."""
    cursor = Cursor(data, position + 1, end, "PUBLISH")
    if not cursor.variable("subscription_identifier"):
        raise malformed("PUBLISH: subscription_identifier is 0")
    return cursor.position


def check_length(length: int) -> None:
    """See that decoding properties costs no more than can be afforded.

    :raises PacketError: they take more than :data:`MAX_PROPERTIES` bytes.
    """
    if length > MAX_PROPERTIES:
        raise malformed(f"PUBLISH: {length} bytes of properties, where {MAX_PROPERTIES} are the most that is taken")
