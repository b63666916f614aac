"""RocketMQ 5 messages written straight into protobuf wire format (the hot path).

A batch is ``SendMessageRequest`` (service.proto): its only field, ``messages = 1``, repeated. Repeated
length-delimited fields may simply be joined (protobuf's encoding specification, "Last One Wins" and "Repeated
Elements"), so each message is encoded on its own, with its field-1 frame, and a request is the concatenation.

What a destination fixes is encoded once; a message is one join of that and of what differs. Field numbers are those of
definition.proto: Message{topic 1, user_properties 2, system_properties 3, body 4}, SystemProperties{tag 1, keys 2,
message_id 3, body_encoding 5, message_type 6, born_timestamp 7, delivery_timestamp 11, message_group 17}.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

from spanbridge.core.cache import Generations
from spanbridge.core.message import Destination
from spanbridge.core.protobuf import SMALL, VARINTS, field, length, timestamp, varint
from spanbridge.core.rocketmq_rules import (
    MAX_BODY_BYTES,
    MAX_PROPERTIES_BYTES,
    MAX_USER_PROPERTIES,
    body_breach,
    check_destination,
    fixed_size,
    properties_too_large,
    property_breach,
)
from spanbridge.rocketmq.grpc.stubs import DELAY, FIFO, NORMAL
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.partitions import DELAYED, UNORDERED

_KNOWN = 4096
"""Properties of a generation that are remembered in encoded form."""
_KNOWN_NAMES = 2048
"""Names of a generation that are remembered in encoded form."""
_KNOWN_SYSTEMS = 256
"""System properties of a generation that destinations share: what ten thousand topics touch stays small."""
_LONGEST_KNOWN = 256
"""Bytes of such a property, or name."""

# A map is a repeated message of key = 1 and value = 2. This is a traceparent's entry up to its value of 55 characters.
_PARENT = "traceparent"
_PARENT_LENGTH = 55
_PARENT_SIZE = len(_PARENT) + _PARENT_LENGTH
_PARENT_ENTRY = b"\x12\x46" + field(1, _PARENT.encode()) + b"\x12\x37"

_MESSAGES = tuple(b"\x0a" + number for number in VARINTS)
_ENTRIES = tuple(b"\x12" + number for number in VARINTS)
_SYSTEMS = tuple(b"\x1a" + number for number in VARINTS)
_BODIES = tuple(b"\x22" + number for number in VARINTS)
"""Tag and length of a message's parts, by length."""


@lru_cache(4096)
def _tag(tag: bytes, size: int) -> bytes:
    """Tag and length of a part that is not in the tables."""
    return tag + length(size)


_MILLISECONDS = (b"", *(b"\x10" + varint(number * 1_000_000) for number in range(1, 1000)))
"""The nanoseconds of a ``google.protobuf.Timestamp`` for each millisecond."""


class Encoder:
    """What all messages of a sink share. One for each sink; not for several threads.

    ``max_body_bytes`` may change at any time: the server's settings say. ``partitions`` is how many partitions the
    groups of a topic are spread over.
    """

    __slots__ = (
        "_ids",
        "_second",
        "_second_born",
        "_second_id",
        "born",
        "born_ns",
        "born_size",
        "entries",
        "max_body_bytes",
        "names",
        "namespace",
        "next_digits",
        "partitions",
        "systems",
    )

    def __init__(self, ids: MessageIds, namespace: str = "", partitions: int = 1) -> None:
        self.max_body_bytes = MAX_BODY_BYTES
        self.namespace = namespace
        self.partitions = partitions
        self.entries: Generations[tuple[str, str], bytes] = Generations(_KNOWN)
        self.names: Generations[str, bytes] = Generations(_KNOWN_NAMES)
        self.systems: Generations[bytes, bytes] = Generations(_KNOWN_SYSTEMS)
        self.born_ns = -1
        self.born = b""
        self.born_size = 0
        self.next_digits = ids.sequence
        self._ids = ids
        self._second = -1
        self._second_born = self._second_id = b""

    def head(self, destination: Destination) -> MessageHead:
        """See :meth:`spanbridge.ports.Sink.head`."""
        return MessageHead(self, destination)

    def set_born(self, born_ns: int) -> None:
        """Encode when messages were born, and the start of their ids. Those of one socket read share it."""
        seconds, milliseconds = divmod(born_ns // 1_000_000, 1000)
        if seconds != self._second:
            self._second = seconds
            self._second_born = timestamp(seconds * 1000)
            self._second_id = b"\x1a\x22" + self._ids.prefix(seconds)
        size = len(self._second_born) + len(_MILLISECONDS[milliseconds])
        self.born = b"\x3a%b%b%b%b" % (
            VARINTS[size],
            self._second_born,
            _MILLISECONDS[milliseconds],
            self._second_id,
        )
        self.born_size = len(self.born) + 8
        self.born_ns = born_ns

    def entry(self, pair: tuple[str, str]) -> bytes:
        """A property as an entry of the map. Devices send the same ones again and again: short ones are kept.

        Where values differ each time (a sequence number), the name is kept.

        :raises SinkRejected: RocketMQ does not take its name or its value.
        """
        encoded = self.entries.get(pair)
        if encoded is None:
            name, value = pair
            key = self.names.young.get(name) or self._name(name)
            if not value.isprintable() and (breach := property_breach(name, value)):
                raise breach.error()
            raw = value.encode()
            size = len(raw)
            body = b"%b%b%b" % (key, VARINTS[size] if size < SMALL else length(size), raw)
            total = len(body)
            encoded = (_ENTRIES[total] if total < SMALL else b"\x12" + length(total)) + body
            if total <= _LONGEST_KNOWN:
                self.entries.put(pair, encoded)
        return encoded

    def _name(self, name: str) -> bytes:
        """A property's name as the start of an entry, up to the tag of its value."""
        encoded = self.names.get(name)
        if encoded is None:
            if breach := property_breach(name, ""):
                raise breach.error()
            encoded = field(1, name.encode()) + b"\x12"
            if len(encoded) <= _LONGEST_KNOWN:
                self.names.put(name, encoded)
        return encoded


class MessageHead:
    """Implements :class:`spanbridge.ports.Head`: what all messages of one destination have in common.

    A message is the topic, the destination's properties, its own, the system properties, and the body. Of the system
    properties the message id comes last, since only that changes each time.
    """

    __slots__ = (
        "_count",
        "_crowded",
        "_encoder",
        "_size",
        "_start",
        "_system",
        "_system_size",
        "_traced",
        "partition",
        "topic",
    )

    def __init__(self, encoder: Encoder, destination: Destination) -> None:
        check_destination(destination)
        kind = message_type(destination)
        self.topic = destination.topic
        self.partition = partition_of(kind, destination.group, encoder.partitions)
        self._encoder = encoder
        resource = field(1, encoder.namespace.encode()) if encoder.namespace else b""
        self._start = field(1, resource + field(2, destination.topic.encode())) + b"".join(
            field(2, field(1, name.encode()) + field(2, value.encode())) for name, value in destination.properties
        )
        self._traced = self._start + _PARENT_ENTRY
        system = _system_properties(destination, kind)
        self._system = encoder.systems.get(system) or system
        if self._system is system:
            encoder.systems.put(system, system)
        self._system_size = len(self._system)
        self._count = len({name for name, _ in destination.properties})
        self._size = fixed_size(destination)
        self._crowded = self._count >= MAX_USER_PROPERTIES or self._size + _PARENT_SIZE > MAX_PROPERTIES_BYTES

    def encode(self, body: bytes, traceparent: str, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        """See :meth:`spanbridge.ports.Head.encode`."""
        encoder = self._encoder
        size = len(body)
        if not 0 < size <= encoder.max_body_bytes:
            raise self._body_refused(size)
        if born_ns != encoder.born_ns:
            encoder.set_born(born_ns)
        if not properties and len(traceparent) == _PARENT_LENGTH and not self._crowded:
            start = self._traced
            own = traceparent.encode()
        elif properties or traceparent:
            start, own = self._with_properties(traceparent, properties)
        else:
            start = self._start
            own = b""
        system_size = self._system_size + encoder.born_size
        system_tag = _SYSTEMS[system_size] if system_size < SMALL else _tag(b"\x1a", system_size)
        body_tag = _BODIES[size] if size < SMALL else _tag(b"\x22", size)
        total = len(start) + len(own) + len(system_tag) + system_size + len(body_tag) + size
        return b"".join((
            _MESSAGES[total] if total < SMALL else _tag(b"\x0a", total),
            start, own, system_tag, self._system, encoder.born, encoder.next_digits(), body_tag, body,
        ))  # fmt: skip

    def _with_properties(self, traceparent: str, properties: Sequence[tuple[str, str]]) -> tuple[bytes, bytes]:
        """What a message of properties begins with, and its own properties after that."""
        encoder = self._encoder
        known = encoder.entries.young
        start, out = self._start, [known.get(pair) or encoder.entry(pair) for pair in properties]
        if len(traceparent) == _PARENT_LENGTH:
            start = self._traced
            out.insert(0, traceparent.encode())
        elif traceparent:
            out.append(encoder.entry((_PARENT, traceparent)))
        own = b"".join(out)
        # The entries' framing counts as well, a few bytes too many each.
        if self._count + len(out) > MAX_USER_PROPERTIES or self._size + len(_PARENT) + len(own) > MAX_PROPERTIES_BYTES:
            self._check_exactly(traceparent, properties)
        return start, own

    def _check_exactly(self, traceparent: str, properties: Sequence[tuple[str, str]]) -> None:
        pairs = ((_PARENT, traceparent), *properties) if traceparent else properties
        used = self._size + sum(len(name.encode()) + len(value.encode()) for name, value in pairs)
        if self._count + len(pairs) > MAX_USER_PROPERTIES or used > MAX_PROPERTIES_BYTES:
            raise properties_too_large(self.topic).error()

    def _body_refused(self, size: int) -> Exception:
        breach = body_breach(self.topic, size, self._encoder.max_body_bytes)
        assert breach is not None
        return breach.error()


def message_type(destination: Destination) -> int:
    """The ``MessageType`` that the broker will see in a message of this destination."""
    if destination.delivery_timestamp_ms is not None:
        return DELAY
    return FIFO if destination.group is not None else NORMAL


def partition_of(kind: int, group: str | None, partitions: int) -> int:
    """The partition of a message. It depends on the group alone: routes come and go, a group never changes it."""
    if kind == DELAY:
        return DELAYED
    return UNORDERED if group is None else crc32(group.encode()) % partitions


def type_of(partition: int) -> int:
    """The ``MessageType`` of all messages in a partition."""
    return NORMAL if partition == UNORDERED else DELAY if partition == DELAYED else FIFO


def _system_properties(destination: Destination, kind: int) -> bytes:
    parts = [field(1, destination.tag.encode())] if destination.tag is not None else []
    parts += [field(2, key.encode()) for key in destination.keys]
    parts.append(b"\x28\x01")  # body_encoding = IDENTITY
    parts.append(b"\x30" + VARINTS[kind])
    if destination.delivery_timestamp_ms is not None:
        parts.append(field(11, timestamp(destination.delivery_timestamp_ms)))
    if destination.group is not None:
        parts.append(field(17, destination.group.encode()))
    return b"".join(parts)
