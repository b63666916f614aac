"""Messages in the layout of a batch's body (the hot path). No I/O.

``MessageDecoder.encodeMessage`` lays a message out as ``total size(4) magic(4) crc(4) flag(4) body size(4) body``, then
``properties size(2) properties``; magic, crc and flag are 0. A batch is the concatenation. Properties are text: name,
0x01, value, 0x02, again and again.

A message of a group begins with its group's hash (4 bytes), which the sender takes off: it decides the queue. A message
whose body is compressed has a crc of 1: brokers pass over that field, and a flag of the request tells them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from spanbridge.core.cache import Generations
from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Destination
from spanbridge.core.rocketmq_rules import (
    MAX_BODY_BYTES,
    MAX_TOPIC_LENGTH,
    PROPERTIES_TOO_LARGE,
    body_breach,
    check_destination,
    property_breach,
)
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.partitions import DELAYED, UNORDERED
from spanbridge.rocketmq.remoting.placing import consistent_hash, java_hash

MAX_PROPERTIES: Final = 32767 - 512
"""Bytes of a message's properties: the broker stores 32767 (``Short.MAX_VALUE``), and adds some of its own."""
GROUP_HASH: Final = struct.Struct(">i")
"""What a message of a group begins with."""

_HEAD = struct.Struct(">iqii")
_CRC_AT: Final = 11
"""Its last byte."""
_COMPRESSED: Final = 1
_PROPERTIES_SIZE = struct.Struct(">H")
_BODY_AT: Final = _HEAD.size
_FRAMING: Final = _HEAD.size + _PROPERTIES_SIZE.size
_PARENT: Final = "traceparent"
_BORN: Final = b"BORN_TIMESTAMP\x01"
_KNOWN: Final = 4096
"""Properties of a generation that are remembered in encoded form."""
_LONGEST_KNOWN: Final = 256
"""Bytes of such a property."""


class RemotingEncoder:
    """What all messages of a sink share. One for each sink; not for several threads.

    ``partitions`` is how many partitions the groups of a topic are spread over. Bodies of more bytes than
    ``compress_above`` are compressed (zlib), none for 0.
    """

    __slots__ = (
        "_ids",
        "_second",
        "_second_id",
        "born",
        "born_ns",
        "compress_above",
        "entries",
        "namespace",
        "next_digits",
        "partitions",
    )

    def __init__(self, ids: MessageIds, namespace: str = "", partitions: int = 1, compress_above: int = 0) -> None:
        self.compress_above = compress_above or MAX_BODY_BYTES
        self.namespace = namespace
        self.partitions = partitions
        self.entries: Generations[tuple[str, str], bytes] = Generations(_KNOWN)
        self.born_ns = -1
        self.born = b""
        self.next_digits = ids.sequence
        self._ids = ids
        self._second = -1
        self._second_id = b""

    def head(self, destination: Destination) -> RemotingHead:
        """See :meth:`spanbridge.ports.Sink.head`."""
        return RemotingHead(self, destination)

    def set_born(self, born_ns: int) -> None:
        """Encode when messages were born, and the start of their ids. Those of one socket read share it."""
        milliseconds = born_ns // 1_000_000
        if milliseconds // 1000 != self._second:
            self._second = milliseconds // 1000
            self._second_id = b"\x02UNIQ_KEY\x01" + self._ids.prefix(self._second)
        self.born = b"%b%d%b" % (_BORN, milliseconds, self._second_id)
        self.born_ns = born_ns

    def entry(self, pair: tuple[str, str]) -> bytes:
        """A property in its encoded form; nothing for one without a value, which RocketMQ does not store either.

        :raises SinkRejected: RocketMQ does not take its name or its value.
        """
        encoded = self.entries.get(pair)
        if encoded is None:
            if breach := property_breach(*pair):
                raise breach.error()
            encoded = _entry(*pair)
            if len(encoded) <= _LONGEST_KNOWN:
                self.entries.put(pair, encoded)
        return encoded


class RemotingHead:
    """Implements :class:`spanbridge.ports.Head`: what all messages of one destination have in common.

    A message's properties are the destination's, its own, when it was born, and its id.
    """

    __slots__ = ("_encoder", "_fixed", "_hash", "_traced", "partition", "topic")

    def __init__(self, encoder: RemotingEncoder, destination: Destination) -> None:
        check_destination(destination)
        wire_topic(encoder.namespace, destination.topic)
        self.topic = destination.topic
        self.partition = _partition(destination, encoder.partitions)
        self._encoder = encoder
        self._hash = b"" if self.partition < 0 else GROUP_HASH.pack(java_hash(destination.group or ""))
        self._fixed = b"".join(_entry(name, value) for name, value in _fixed_properties(destination))
        self._traced = self._fixed + _PARENT.encode() + b"\x01"

    def encode(self, body: bytes, traceparent: str, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        """See :meth:`spanbridge.ports.Head.encode`."""
        encoder = self._encoder
        size = len(body)
        if not 0 < size <= MAX_BODY_BYTES:
            raise self._body_refused(size)
        form = 0
        if size > encoder.compress_above:
            smaller = _compressed(body)
            if len(smaller) < size:
                body, size, form = smaller, len(smaller), _COMPRESSED
        if born_ns != encoder.born_ns:
            encoder.set_born(born_ns)
        start, own = self._fixed, b""
        if properties:
            known = encoder.entries.young
            own = b"".join([known.get(pair) or encoder.entry(pair) for pair in properties])
        if traceparent:
            start = self._traced
            own = b"%b\x02%b" % (traceparent.encode(), own)
        total = len(start) + len(own) + len(encoder.born) + 9  # eight digits, and what ends the id
        if total > MAX_PROPERTIES:
            raise self._properties_refused(total)
        return b"".join((
            self._hash, _HEAD.pack(_FRAMING + size + total, form, 0, size), body, _PROPERTIES_SIZE.pack(total),
            start, own, encoder.born, encoder.next_digits(), b"\x02",
        ))  # fmt: skip

    def _body_refused(self, size: int) -> SinkRejected:
        breach = body_breach(self.topic, size, MAX_BODY_BYTES)
        assert breach is not None
        return breach.error()

    def _properties_refused(self, size: int) -> SinkRejected:
        text = f"topic {self.topic!r}: {size} bytes of properties, more than {MAX_PROPERTIES}"
        return SinkRejected(text, reason=PROPERTIES_TOO_LARGE)


def wire_topic(namespace: str, topic: str) -> str:
    """The topic as RocketMQ knows it (``NamespaceUtil.wrapNamespace``).

    :raises SinkRejected: together they are too long.
    """
    if not namespace:
        return topic
    name = f"{namespace}%{topic}"
    if len(name) > MAX_TOPIC_LENGTH:
        text = f"topic {name!r} has {len(name)} characters with its namespace, more than {MAX_TOPIC_LENGTH}"
        raise SinkRejected(text, reason="illegal_topic")
    return name


def split(message: bytes) -> tuple[bytes, str]:
    """Body and properties of an encoded message, for a request of its own."""
    size = _HEAD.unpack_from(message)[3]
    return message[_BODY_AT : _BODY_AT + size], message[_FRAMING + size :].decode()


def is_compressed(message: bytes) -> bool:
    """Whether the body of an encoded message is compressed. It has no hash in front any more."""
    return message[_CRC_AT] == _COMPRESSED


def born_of(message: bytes) -> str:
    """When a message was born: Unix time in milliseconds. No value can hold what the property begins with."""
    start = message.rindex(_BORN) + len(_BORN)
    return message[start : message.index(b"\x02", start)].decode()


def read_back(topic: str, message: bytes, *, grouped: bool) -> tuple[Destination, bytes, list[tuple[str, str]], int]:
    """Destination, body, other properties and birth (Unix time, ns) of a message that :class:`RemotingHead` encoded."""
    body, text = split(message[GROUP_HASH.size :] if grouped else message)
    found: dict[str, str] = dict(item.split("\x01", 1) for item in text.split("\x02") if item)
    born_ms, due = found.pop("BORN_TIMESTAMP"), found.pop("TIMER_DELIVER_MS", None)
    del found["UNIQ_KEY"]
    destination = Destination(
        topic,
        tag=found.pop("TAGS", None),
        keys=tuple(found.pop("KEYS", "").split()),
        group=found.pop("__SHARDINGKEY", None),
        delivery_timestamp_ms=None if due is None else int(due),
    )
    return destination, body, list(found.items()), int(born_ms) * 1_000_000


def _compressed(body: bytes) -> bytes:
    """Fast, and with half of zlib's usual memory: setting that up is what most bodies cost."""
    form = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 6)
    return form.compress(body) + form.flush()


def _partition(destination: Destination, partitions: int) -> int:
    """It depends on the group alone, as the queue does: where both have as many, a partition is a queue."""
    if destination.delivery_timestamp_ms is not None:
        return DELAYED
    return UNORDERED if destination.group is None else consistent_hash(java_hash(destination.group), partitions)


def _fixed_properties(destination: Destination) -> list[tuple[str, str]]:
    pairs = list(destination.properties)
    if destination.tag is not None:
        pairs.append(("TAGS", destination.tag))
    if destination.keys:
        pairs.append(("KEYS", " ".join(destination.keys)))
    if destination.delivery_timestamp_ms is not None:
        pairs.append(("TIMER_DELIVER_MS", str(destination.delivery_timestamp_ms)))
    if destination.group is not None:
        pairs.append(("__SHARDINGKEY", destination.group))
    return pairs


def _entry(name: str, value: str) -> bytes:
    return b"%b\x01%b\x02" % (name.encode(), value.encode()) if value else b""
