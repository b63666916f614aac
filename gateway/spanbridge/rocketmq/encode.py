"""RocketMQ 5 messages written straight into protobuf wire format (the hot path).

A batch is ``SendMessageRequest`` (service.proto): its only field, ``messages = 1``, repeated. Repeated
length-delimited fields may simply be joined (protobuf's encoding specification, "Last One Wins" and "Repeated
Elements"), so each message is encoded on its own, with its field-1 frame, and a request is the concatenation.

What an address fixes is encoded once; what differs from message to message is appended. Field numbers are those of
definition.proto: Message{topic 1, user_properties 2, system_properties 3, body 4}, SystemProperties{tag 1, keys 2,
message_id 3, body_encoding 5, message_type 6, born_timestamp 7, delivery_timestamp 11, message_group 17}.
"""

from __future__ import annotations

from collections.abc import Sequence

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Address
from spanbridge.core.rocketmq_rules import (
    MAX_BODY_BYTES,
    MAX_PROPERTIES_BYTES,
    MAX_USER_PROPERTIES,
    group_problem,
    key_problem,
    property_name_problem,
    property_value_problem,
    tag_problem,
    topic_problem,
)
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.stubs import DELAY, FIFO, NORMAL

_KNOWN_NAMES = 4096
"""Property names remembered in encoded form; devices that make up names must not grow the process."""
_LONGEST_KNOWN = 256
"""Characters of such a name."""


def varint(value: int) -> bytes:
    """A non-negative integer as a base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_VARINTS = tuple(varint(n) for n in range(1024))
_SMALL = len(_VARINTS)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field (wire type 2)."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def timestamp(milliseconds: int) -> bytes:
    """A ``google.protobuf.Timestamp``. RocketMQ keeps milliseconds only."""
    seconds, rest = divmod(milliseconds, 1000)
    return b"\x08" + varint(seconds) + (b"\x10" + varint(rest * 1_000_000) if rest else b"")


class Prepared:
    """What all messages of one address have in common. Opaque to everybody but this adapter."""

    __slots__ = ("group", "head", "lane", "message_type", "property_bytes", "property_count", "system", "topic")

    def __init__(self, address: Address, namespace: str, lane: int) -> None:
        check_address(address)
        self.topic = address.topic
        self.group = address.group
        self.lane = lane
        self.message_type = message_type(address)
        resource = (field(1, namespace.encode()) if namespace else b"") + field(2, address.topic.encode())
        self.head = field(1, resource) + b"".join(_entry(name, value) for name, value in address.properties)
        self.system = _fixed_system_properties(address, self.message_type)
        self.property_count = len({name for name, _ in address.properties})
        self.property_bytes = _fixed_size(address)


def message_type(address: Address) -> int:
    """The ``MessageType`` that the broker will see in a message of this address."""
    if address.delivery_timestamp_ms is not None:
        return DELAY
    return FIFO if address.group is not None else NORMAL


def check_address(address: Address) -> None:
    """Apply RocketMQ's rules to what is fixed.

    :raises SinkRejected: naming the part at fault.
    """
    _refuse(topic_problem(address.topic), "topic", address.topic, "illegal_topic")
    if address.tag is not None:
        _refuse(tag_problem(address.tag), "tag", address.tag, "illegal_message_tag")
    for key in address.keys:
        _refuse(key_problem(key), "key", key, "illegal_message_key")
    if address.group is not None:
        _refuse(group_problem(address.group), "message group", address.group, "illegal_message_group")
    for name, value in address.properties:
        _refuse(property_name_problem(name), "property", name, "illegal_message_property_key")
        if problem := property_value_problem(value):
            _refuse(problem, "the value of property", name, "illegal_message_property_key")
    if len(address.properties) > MAX_USER_PROPERTIES or _fixed_size(address) > MAX_PROPERTIES_BYTES:
        raise _too_large(address.topic)


def _fixed_size(address: Address) -> int:
    texts = [address.tag or "", *address.keys, *(text for pair in address.properties for text in pair)]
    return sum(len(text.encode()) for text in texts)


def _refuse(problem: str | None, what: str, text: str, reason: str) -> None:
    if problem is not None:
        raise SinkRejected(f"{what} {text[:80]!r} {problem}", reason=reason)


def _too_large(topic: str) -> SinkRejected:
    return SinkRejected(
        f"topic {topic!r}: more than {MAX_USER_PROPERTIES} properties or {MAX_PROPERTIES_BYTES} bytes of them",
        reason="message_properties_too_large",
    )


def _check_exactly(prepared: Prepared, properties: Sequence[tuple[str, str]]) -> None:
    used = prepared.property_bytes + sum(len(name.encode()) + len(value.encode()) for name, value in properties)
    if prepared.property_count + len(properties) > MAX_USER_PROPERTIES or used > MAX_PROPERTIES_BYTES:
        raise _too_large(prepared.topic)


def _entry(name: str, value: str) -> bytes:
    # A map is a repeated message of key = 1 and value = 2.
    return field(2, field(1, name.encode()) + field(2, value.encode()))


def _fixed_system_properties(address: Address, kind: int) -> bytes:
    parts = [field(1, address.tag.encode())] if address.tag is not None else []
    parts += [field(2, key.encode()) for key in address.keys]
    parts.append(b"\x28\x01")  # body_encoding = IDENTITY
    parts.append(b"\x30" + varint(kind))
    if address.delivery_timestamp_ms is not None:
        parts.append(field(11, timestamp(address.delivery_timestamp_ms)))
    if address.group is not None:
        parts.append(field(17, address.group.encode()))
    return b"".join(parts)


class Encoder:
    """Appends to a :class:`Prepared` what is a message's own. One for each sink; not for several threads."""

    __slots__ = ("_born", "_born_ns", "_ids", "_names", "_tail", "max_body_bytes")

    def __init__(self, ids: MessageIds) -> None:
        self.max_body_bytes = MAX_BODY_BYTES
        self._ids = ids
        self._names: dict[str, bytes] = {}
        self._born_ns = -1
        self._born = b""
        self._tail = 0

    def encode(self, prepared: Prepared, body: bytes, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        """See :meth:`spanbridge.ports.Sink.encode`."""
        size = len(body)
        if not 0 < size <= self.max_body_bytes:
            raise self._body_problem(prepared, size)
        if born_ns != self._born_ns:
            self._set_born(born_ns)
        head = prepared.head
        if properties:
            head += self._properties(prepared, properties)
        system = prepared.system
        length = len(system) + self._tail
        # system_properties: length, fixed part, born_timestamp, and message_id last since only it changes each time.
        message = b"%b\x1a%b%b%b%08X\x22%b%b" % (
            head,
            _VARINTS[length] if length < _SMALL else varint(length),
            system,
            self._born,
            self._ids.sequence(),
            _VARINTS[size] if size < _SMALL else varint(size),
            body,
        )
        total = len(message)
        return b"\x0a%b%b" % (_VARINTS[total] if total < _SMALL else varint(total), message)

    def _set_born(self, born_ns: int) -> None:
        # Messages of one socket read share their time, so this runs once for many.
        milliseconds = born_ns // 1_000_000
        self._born = field(7, timestamp(milliseconds)) + b"\x1a\x22" + self._ids.prefix(milliseconds // 1000)
        self._tail = len(self._born) + 8
        self._born_ns = born_ns

    def _properties(self, prepared: Prepared, properties: Sequence[tuple[str, str]]) -> bytes:
        names = self._names
        out = []
        used = prepared.property_bytes
        for name, value in properties:
            key = names.get(name) or self._name(name)
            try:
                raw = value.encode()
            except UnicodeEncodeError:
                raw = b""
            if not value.isprintable() and (problem := property_value_problem(value)):
                _refuse(problem, "the value of property", name, "illegal_message_property_key")
            size = len(raw)
            entry = len(key) + size + (1 if size < 128 else 2 if size < 16384 else 3)
            used += len(key) + size  # with the key's framing, a few bytes too many
            out.append(
                b"\x12%b%b%b%b"
                % (
                    _VARINTS[entry] if entry < _SMALL else varint(entry),
                    key,
                    _VARINTS[size] if size < _SMALL else varint(size),
                    raw,
                )
            )
        if prepared.property_count + len(out) > MAX_USER_PROPERTIES or used > MAX_PROPERTIES_BYTES:
            _check_exactly(prepared, properties)
        return b"".join(out)

    def _name(self, name: str) -> bytes:
        _refuse(property_name_problem(name), "property", name, "illegal_message_property_key")
        encoded = field(1, name.encode()) + b"\x12"
        if len(name) <= _LONGEST_KNOWN:
            if len(self._names) >= _KNOWN_NAMES:
                self._names.clear()
            self._names[name] = encoded
        return encoded

    def _body_problem(self, prepared: Prepared, size: int) -> SinkRejected:
        if not size:
            return SinkRejected(f"topic {prepared.topic!r}: RocketMQ refuses empty bodies", reason="message_body_empty")
        return SinkRejected(
            f"topic {prepared.topic!r}: a body of {size} bytes is over the cluster's limit of {self.max_body_bytes}",
            reason="message_body_too_large",
        )
