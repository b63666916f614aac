"""PUBLISH as it is sent (MQTT 5.0 section 3.3, 3.1.1 section 3.3): the hot path of the publisher."""

from __future__ import annotations

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Publish
from spanbridge.mqtt.codec.aliases import Aliases
from spanbridge.mqtt.codec.strings import PropertyNames, TopicNames, encoded, fault
from spanbridge.mqtt.codec.wire import MAX_REMAINING, variable

_HEADS = [bytes((head,)) for head in range(256)]
_LENGTHS = [variable(length) for length in range(2048)]
_EMPTY = b"\x00\x00"


class PublishEncoder:
    """Encodes for one connection. ``limit`` is the broker's Maximum Packet Size in bytes, None when it told none.

    ``alias_maximum`` is its Topic Alias Maximum, as far as it is to be used.
    """

    __slots__ = ("_aliases", "_limit", "_names", "_topics", "_v5")

    def __init__(self, *, v5: bool, limit: int | None = None, alias_maximum: int = 0) -> None:
        self._v5 = v5
        self._limit = MAX_REMAINING if limit is None else limit
        self._aliases = Aliases(alias_maximum) if v5 and alias_maximum else None
        self._topics = TopicNames()
        self._names = PropertyNames()

    def encode(
        self, message: Publish, packet_id: int, qos: int, *, dup: bool = False, expiry: int | None = None
    ) -> bytes:
        """The packet. ``packet_id`` is 0 for QoS 0; ``expiry`` is the Message Expiry Interval in seconds.

        In 3.1.1 the fields of MQTT 5.0 are left out.

        :raises SinkRejected: ``bad_topic``, ``bad_property`` or ``packet_too_large``. Nothing is to be sent then.
        """
        topic = self._topics[message.topic]
        head = 0x30 | dup << 3 | qos << 1 | message.retain
        number = packet_id.to_bytes(2, "big") if qos else b""
        if not self._v5:
            return self._frame(head, topic, number, b"", message.payload)
        fields = self._fields(message, expiry)
        aliases = self._aliases
        if aliases is not None and len(topic) > aliases.SHORTEST:
            known = aliases.known(topic)
            if known is not None:
                return self._frame(head, _EMPTY, number, _counted(known + fields), message.payload)
            new = aliases.wanted(topic)
            if new is not None:
                try:
                    data = self._frame(head, topic, number, _counted(new + fields), message.payload)
                except SinkRejected:  # without the alias it may just fit
                    pass
                else:
                    aliases.assign(topic)
                    return data
        return self._frame(head, topic, number, _counted(fields), message.payload)

    def _fields(self, message: Publish, expiry: int | None) -> bytes:
        """The properties without their length. Most messages have user properties only.

        :raises SinkRejected: one does not fit, or has a character that brokers refuse.
        """
        names = self._names
        parts: list[bytes] = []
        for name, value in message.user_properties:
            if not (value.isascii() and value.isprintable()) and (wrong := fault(value)):
                raise _bad_property(f"user property {name[:100]!r}", wrong)
            data = value.encode()
            if len(data) > 0xFFFF:
                raise _bad_property(f"user property {name[:100]!r}", f"{len(data)} bytes, allowed are 65535")
            parts += (names[name], len(data).to_bytes(2, "big"), data)
        if expiry is not None:
            parts.append(b"\x02" + min(expiry, 0xFFFF_FFFF).to_bytes(4, "big"))
        if (
            message.content_type is not None
            or message.response_topic is not None
            or message.correlation_data is not None
            or message.payload_format is not None
        ):
            parts += _others(message)
        return b"".join(parts)

    def _frame(self, head: int, topic: bytes, number: bytes, properties: bytes, payload: bytes) -> bytes:
        """The packet from its parts.

        :raises SinkRejected: it is larger than the broker takes, or than MQTT has.
        """
        length = len(topic) + len(number) + len(properties) + len(payload)
        try:
            size = _LENGTHS[length] if length < 2048 else variable(length)
        except ValueError:
            raise _too_large(length, MAX_REMAINING) from None
        if length + 1 + len(size) > self._limit:
            raise _too_large(length + 1 + len(size), self._limit)
        return b"".join((_HEADS[head], size, topic, number, properties, payload))


def _counted(fields: bytes) -> bytes:
    """Properties with their length in front."""
    length = len(fields)
    try:
        return (_LENGTHS[length] if length < 2048 else variable(length)) + fields
    except ValueError:
        raise _too_large(length, MAX_REMAINING) from None


def _others(message: Publish) -> list[bytes]:
    """The properties that few messages have.

    :raises SinkRejected: one does not fit, or has a character that brokers refuse.
    """
    parts: list[bytes] = []
    if message.payload_format is not None:
        parts.append(b"\x01" + _HEADS[1 if message.payload_format else 0])
    if message.content_type is not None:
        parts.append(b"\x03" + encoded(message.content_type, "bad_property", "the content type"))
    if message.response_topic is not None:
        topic = message.response_topic
        if not topic or "+" in topic or "#" in topic:  # MQTT-3.3.2-14
            raise _bad_property("the response topic", "it is no topic name")
        parts.append(b"\x08" + encoded(topic, "bad_property", "the response topic"))
    if message.correlation_data is not None:
        data = message.correlation_data
        if len(data) > 0xFFFF:
            raise _bad_property("the correlation data", f"{len(data)} bytes, allowed are 65535")
        parts.append(b"\x09" + len(data).to_bytes(2, "big") + data)
    return parts


def _bad_property(what: str, wrong: str) -> SinkRejected:
    return SinkRejected(f"{what} cannot be sent over MQTT: {wrong}", reason="bad_property")


def _too_large(size: int, limit: int) -> SinkRejected:
    return SinkRejected(f"a packet of {size} bytes, where the broker takes {limit}", reason="packet_too_large")
