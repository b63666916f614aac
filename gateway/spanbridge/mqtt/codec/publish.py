"""PUBLISH as it is sent (MQTT 5.0 section 3.3, 3.1.1 section 3.3): the hot path of the publisher."""

from __future__ import annotations

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Publish
from spanbridge.mqtt.codec.aliases import Aliases
from spanbridge.mqtt.codec.strings import PropertyNames, TopicNames, encoded, fault
from spanbridge.mqtt.codec.wire import MAX_REMAINING, variable

_TABLE = 2048
_HEADS = [bytes((0x30 | flags,)) for flags in range(16)]
_LENGTHS = [variable(length) for length in range(_TABLE)]
_TWO = [length.to_bytes(2, "big") for length in range(_TABLE)]
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
        parts = [_HEADS[dup << 3 | qos << 1 | message.retain], b"", topic, packet_id.to_bytes(2, "big") if qos else b""]
        if not self._v5:
            return self._whole(parts, len(topic) + len(parts[3]), message.payload)
        parts.append(b"")
        fields = self._fields(message, expiry, parts)
        aliases = self._aliases
        if aliases is not None and len(topic) > aliases.SHORTEST:
            alias = aliases.known(topic)
            if alias is not None:
                parts[2] = topic = _EMPTY
            else:
                alias = aliases.wanted(topic)
                if alias is not None and not self._fits(parts, message.payload, len(alias)):
                    alias = None
                if alias is not None:
                    aliases.assign(topic)
            if alias is not None:
                parts.append(alias)
                fields += 3
        parts[4] = properties = _LENGTHS[fields] if fields < _TABLE else variable(fields)
        return self._whole(parts, len(topic) + len(parts[3]) + len(properties) + fields, message.payload)

    def _fields(self, message: Publish, expiry: int | None, parts: list[bytes]) -> int:
        """Append the properties; return their size. Most messages have user properties only.

        :raises SinkRejected: one does not fit, or has a character that brokers refuse.
        """
        names, size = self._names, 0
        for name, value in message.user_properties:
            if not (value.isascii() and value.isprintable()) and (wrong := fault(value)):
                raise _bad_property(f"user property {name[:100]!r}", wrong)
            key, data = names[name], value.encode()
            length = len(data)
            if length > 0xFFFF:
                raise _bad_property(f"user property {name[:100]!r}", f"{length} bytes, allowed are 65535")
            parts += (key, _TWO[length] if length < _TABLE else length.to_bytes(2, "big"), data)
            size += len(key) + 2 + length
        if expiry is not None:
            parts.append(b"\x02" + min(expiry, 0xFFFF_FFFF).to_bytes(4, "big"))
            size += 5
        if (
            message.content_type is not None
            or message.response_topic is not None
            or message.correlation_data is not None
            or message.payload_format is not None
        ):
            others = _others(message)
            parts += others
            size += sum(map(len, others))
        if size > MAX_REMAINING:
            raise _too_large(size, MAX_REMAINING)
        return size

    def _whole(self, parts: list[bytes], length: int, payload: bytes) -> bytes:
        """The packet: ``length`` bytes of parts behind the fixed header, and the payload.

        :raises SinkRejected: it is larger than the broker takes, or than MQTT has.
        """
        length += len(payload)
        if length > MAX_REMAINING:
            raise _too_large(length, MAX_REMAINING)
        parts[1] = size = _LENGTHS[length] if length < _TABLE else variable(length)
        if length + 1 + len(size) > self._limit:
            raise _too_large(length + 1 + len(size), self._limit)
        parts.append(payload)
        return b"".join(parts)

    def _fits(self, parts: list[bytes], payload: bytes, more: int) -> bool:
        """Whether the packet is within the limit with so many bytes more; lengths are counted at their longest."""
        return sum(map(len, parts)) + len(payload) + more + 9 <= self._limit


def _others(message: Publish) -> list[bytes]:
    """The properties that few messages have.

    :raises SinkRejected: one does not fit, or has a character that brokers refuse.
    """
    parts: list[bytes] = []
    if message.payload_format is not None:
        parts.append(b"\x01\x01" if message.payload_format else b"\x01\x00")
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
