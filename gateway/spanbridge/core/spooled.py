"""A message as the spool keeps it: what was received, and what of its trace is told already.

It is the message of MQTT's side, not RocketMQ's form of it: it is worked out anew when it is sent, by the configuration
of that day (docs/adr/0120). As bytes::

    flags u8 | received and waited | trace 32 bytes, if any | topic | further fields, if any | payload

``received`` is Unix time in milliseconds (48 bits), ``waited`` in units of 10 ms how long the message was held before
it was spooled (8 bits where that is enough, else 16: 655 s at most).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error
from typing import NamedTuple

from spanbridge.core.cache import Generations
from spanbridge.core.message import Publish

MESSAGE = 1
"""Kind of a message that is to be sent."""
DROPPABLE = 2
"""The same, of a route that would rather lose its oldest messages than wait (``when_full = "drop_oldest"``)."""
DEAD_LETTER = 3
"""Kind of a message that was rejected."""
AGAIN = 4
"""Kind of a message that somebody wants sent again, whatever its age."""
HERE = "(spool)"
"""Stands for a RocketMQ topic where dead letters go to the spool: topics have no parentheses."""

_HEAD = Struct("<BQ")
_TRACED_HEAD = Struct("<Q16s8s8sB")
"""The start of a message that is traced and did not wait for long, up to the length of its topic."""
_FIELD = Struct("<BI")
_SIZE = Struct("<I")
_LONG = Struct("<H")
_EXPIRY = Struct("<IQ")
_MOMENT = Struct("<Q")
_QOS, _RETAIN, _TRACED, _MORE, _SOON = 0x03, 0x04, 0x08, 0x10, 0x20
_MS = 1_000_000
_UNIT = 10 * _MS
_LONGEST_WAIT = 0xFFFF
_RECEIVED = (1 << 48) - 1
_SHORT = 255

_TOPICS: Generations[bytes, str] = Generations(4096)
"""Topics that were decoded: messages of one share a string, whose hash is computed once."""
_LONGEST_KNOWN = 256
"""Bytes of a topic that is kept."""
_new = object.__new__
_ids = tuple.__new__

_SOURCE, _TYPE, _RESPONSE, _CORRELATION, _FORMAT, _EXPIRES, _NAME, _VALUE, _REASON, _ERROR, _FAULT, _BOOT = range(1, 13)


class Record(NamedTuple):
    """What a spool holds: a number, a kind (1 to 255), and bytes that are no business of its own."""

    number: int
    kind: int
    body: bytes


class Lost(NamedTuple):
    """Records that cannot be read, by their numbers: from ``first`` to before ``end``."""

    first: int
    end: int


class TraceIds(NamedTuple):
    """Ids, as bytes, of a message whose spans are recorded. ``process_id`` is of a span that has ended already."""

    trace_id: bytes
    process_id: bytes
    send_id: bytes


@dataclass(slots=True, eq=False)
class Spooled:
    """A message in the spool. ``spooled_ns`` is Unix time: when it was handed over.

    ``source`` names the MQTT connection that it came over, "" for the only one. ``boot_ns`` is when it arrived, or was
    rejected, by a clock that counts from the machine's start and is never set; 0 unless its age matters. ``reason`` and
    ``error`` say why it was rejected.
    """

    publish: Publish
    spooled_ns: int = 0
    trace: TraceIds | None = None
    source: str = ""
    boot_ns: int = 0
    reason: str = ""
    error: str = ""


class SpooledError(ValueError):
    """The bytes are no message."""


def encode(spooled: Spooled) -> bytes:
    """The bytes of a message. Hot path while RocketMQ is away."""
    publish = spooled.publish
    flags = publish.qos | (_RETAIN if publish.retain else 0)
    more = _further(spooled)
    topic = publish.topic.encode("utf-8", "surrogatepass")
    length = bytes((len(topic),)) if len(topic) < _SHORT else b"\xff" + _LONG.pack(len(topic))
    waited = min(max(0, spooled.spooled_ns - publish.received_ns) // _UNIT, _LONGEST_WAIT)
    ids = b""
    if spooled.trace is not None:
        flags |= _TRACED
        ids = b"".join(spooled.trace)
    if more:
        flags |= _MORE
        more = _SIZE.pack(len(more)) + more
    received = publish.received_ns // _MS
    if waited < 256:
        head = _HEAD.pack(flags | _SOON, (received & _RECEIVED) << 8 | waited)[:-1]
    else:
        head = _HEAD.pack(flags, (received & _RECEIVED) << 16 | waited)
    return b"".join((head, ids, length, topic, more, publish.payload))


def _further(spooled: Spooled) -> bytes:  # noqa: C901 - as _fill
    publish = spooled.publish
    parts: list[bytes] = []
    if spooled.source:
        parts.append(_text(_SOURCE, spooled.source))
    for name, value in publish.user_properties:
        parts += (_text(_NAME, name), _text(_VALUE, value))
    if publish.content_type is not None:
        parts.append(_text(_TYPE, publish.content_type))
    if publish.response_topic is not None:
        parts.append(_text(_RESPONSE, publish.response_topic))
    if publish.correlation_data is not None:
        parts.append(_field(_CORRELATION, publish.correlation_data))
    if publish.payload_format is not None:
        parts.append(_field(_FORMAT, bytes((publish.payload_format,))))
    if publish.expiry is not None:
        parts.append(_field(_EXPIRES, _EXPIRY.pack(publish.expiry, spooled.boot_ns)))
    elif spooled.boot_ns:
        parts.append(_field(_BOOT, _MOMENT.pack(spooled.boot_ns)))
    if publish.fault is not None:
        parts.append(_text(_FAULT, publish.fault))
    if spooled.reason:
        parts += (_text(_REASON, spooled.reason), _text(_ERROR, spooled.error))
    return b"".join(parts)


def _text(tag: int, text: str) -> bytes:
    return _field(tag, text.encode("utf-8", "surrogatepass"))


def _field(tag: int, value: bytes) -> bytes:
    return _FIELD.pack(tag, len(value)) + value


def decode(data: bytes) -> Spooled:
    """The message of some bytes. Hot path while a backlog drains.

    :raises SpooledError: they are none. Fields that this version does not know are left out.
    """
    try:
        flags = data[0]
        trace = None
        if flags & (_SOON | _TRACED) == _SOON | _TRACED:
            time, trace_id, process_id, send_id, length = _TRACED_HEAD.unpack_from(data)
            trace = _ids(TraceIds, (trace_id, process_id, send_id))
            at, received, waited = _TRACED_HEAD.size, (time >> 16) * _MS, time >> 8 & 0xFF
        else:
            at, received, waited, trace, length = _head(data, flags)
        if length == _SHORT:
            (length,) = _LONG.unpack_from(data, at)
            at += _LONG.size
        body = at + length
        raw = data[at:body]
        topic = _TOPICS.young.get(raw) or _topic(raw)
        fields = b""
        if flags & _MORE:
            (size,) = _SIZE.unpack_from(data, body)
            at = body + _SIZE.size
            body = at + size
            fields = data[at:body]
        if body > len(data):
            raise SpooledError("it is cut off")
        publish = _new(Publish)
        publish.topic = topic
        publish.payload = data[body:]
        publish.qos = flags & _QOS
        publish.retain = flags & _RETAIN != 0
        publish.user_properties = ()
        publish.content_type = publish.response_topic = publish.correlation_data = None
        publish.expiry = publish.payload_format = publish.fault = None
        publish.received_ns = received
        spooled = _new(Spooled)
        spooled.publish = publish
        spooled.spooled_ns = received + waited * _UNIT
        spooled.trace = trace
        spooled.source = spooled.reason = spooled.error = ""
        spooled.boot_ns = 0
        if fields:
            _fill(spooled, fields)
    except (error, IndexError, UnicodeDecodeError) as problem:
        raise SpooledError(f"{type(problem).__name__}: {problem}") from None
    return spooled


def qos_of(data: bytes) -> int:
    """The QoS of a message, by its bytes."""
    return data[0] & _QOS if data else 0


def _head(data: bytes, flags: int) -> tuple[int, int, int, TraceIds | None, int]:
    """The start of a message of another form: where its topic begins, when it came, how long it waited, its ids, and
    the first byte of its topic's length."""
    _, time = _HEAD.unpack_from(data)
    if flags & _SOON:
        at, received, waited = 8, (time >> 8 & _RECEIVED) * _MS, time & 0xFF
    else:
        at, received, waited = 9, (time >> 16) * _MS, time & _LONGEST_WAIT
    trace = None
    if flags & _TRACED:
        trace = TraceIds(data[at : at + 16], data[at + 16 : at + 24], data[at + 24 : at + 32])
        at += 32
    return at + 1, received, waited, trace, data[at]


def _topic(raw: bytes) -> str:
    topic = _TOPICS.get(raw)
    if topic is None:
        topic = raw.decode("utf-8", "surrogatepass")
        if 0 < len(raw) <= _LONGEST_KNOWN:
            _TOPICS.put(raw, topic)
    return topic


def _fill(spooled: Spooled, data: bytes) -> None:  # noqa: C901, PLR0912 - one line to a field
    publish = spooled.publish
    names: list[str] = []
    values: list[str] = []
    for tag, value in _fields(data):
        match tag:
            case 1:
                spooled.source = _read(value)
            case 2:
                publish.content_type = _read(value)
            case 3:
                publish.response_topic = _read(value)
            case 4:
                publish.correlation_data = value
            case 5:
                publish.payload_format = value[0]
            case 6:
                publish.expiry, spooled.boot_ns = _EXPIRY.unpack(value)
            case 7:
                names.append(_read(value))
            case 8:
                values.append(_read(value))
            case 9:
                spooled.reason = _read(value)
            case 10:
                spooled.error = _read(value)
            case 11:
                publish.fault = _read(value)
            case 12:
                (spooled.boot_ns,) = _MOMENT.unpack(value)
    publish.user_properties = list(zip(names, values, strict=False)) if names else ()


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, size = _FIELD.unpack_from(data, at)
        at += _FIELD.size
        if at + size > len(data):
            raise SpooledError("a field is cut off")
        yield tag, data[at : at + size]
        at += size


def _read(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")


def left_ns(spooled: Spooled, *, now_ns: int, boot_now_ns: int, same_boot: bool) -> int | None:
    """Nanoseconds until the message expires, negative once it has; None when it never does.

    While the machine has not been restarted, time is counted by the clock that nobody sets. After a restart it is
    counted by Unix time, which may have been set meanwhile; a clock that stands before the message's arrival counts
    nothing, so that no message is dropped for a clock that is wrong.
    """
    publish = spooled.publish
    if publish.expiry is None:
        return None
    passed = boot_now_ns - spooled.boot_ns if same_boot else now_ns - publish.received_ns
    return publish.expiry * 1_000_000_000 - max(0, passed)


def age_ns(spooled: Spooled, since_ns: int, *, now_ns: int, boot_now_ns: int, same_boot: bool) -> int:
    """Nanoseconds since a message's ``boot_ns``, which was ``since_ns`` in Unix time.

    While the machine has not been restarted, they are counted by the clock that nobody sets.
    """
    return boot_now_ns - spooled.boot_ns if same_boot and spooled.boot_ns else now_ns - since_ns
