"""OTLP traces in protobuf's wire format (``opentelemetry/proto/trace/v1/trace.proto``, ``common/v1/common.proto``).

Field numbers are the proto files'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct

from spanbridge.core.cache import Generations
from spanbridge.core.protobuf import SMALL, VARINTS, field, text, varint

Attribute = str | bool | int | float | Sequence[str]
"""Attribute values that the gateway's own spans and OTEL_RESOURCE_ATTRIBUTES use."""

# Span.flags (16): bit 8 says that bit 9 means something, bit 9 that the parent is remote.
LOCAL = b"\x85\x01\x00\x01\x00\x00"
REMOTE = b"\x85\x01\x00\x03\x00\x00"
STATUS_UNSET = b"z\x00"
STATUS_ERROR = b"z\x02\x18\x02"
LINK_DROPPED = b"p\x01"  # Span.dropped_links_count (14)
SIZE = "messaging.message.body.size"

_DOUBLE = Struct("<d")
# trace_id (1), span_id (2), parent_span_id (4), start_time_unix_nano (7), end_time_unix_nano (8)
TRACE, SPAN, PARENT = b"\n\x10", b"\x12\x08", b'"\x08'  # tags and lengths of the first three
_CHILD = Struct("<2s16s2s8s2s8sBQBQ").pack
_ROOT = Struct("<2s16s2s8sBQBQ").pack
_TIMES = Struct("<BQBQ2s").pack
LOCAL_LINK = Struct("4s16s2s8s5s").pack
"""A link to a span of ours, its ids between their tags."""
PARENT_SIZE = 10
CHILD_SIZE = 42 + PARENT_SIZE + len(LOCAL) + len(STATUS_UNSET)
"""Bytes of ids, times, flags and status in a span that has a parent, beside the tags of its own ids."""
FRAMES = tuple(b"\x12" + number for number in VARINTS)
"""Tag and length of a ``ScopeSpans.spans`` field (2), by length."""

_NUMBERS = tuple(range(SMALL))

SIZES: Generations[int, bytes] = Generations(4096)
"""The attributes of body sizes that were met."""


def attributes(number: int, values: Mapping[str, object]) -> bytes:
    """Repeated ``KeyValue`` fields."""
    return b"".join(attribute(number, name, value) for name, value in values.items())


def attribute(number: int, name: str, value: object) -> bytes:
    """One ``KeyValue`` field (common.proto).

    :raises TypeError: a value that has no ``AnyValue`` form here.
    """
    return field(number, field(1, name.encode("utf-8", "replace")) + field(2, _any_value(value)))


def _any_value(value: object) -> bytes:
    if isinstance(value, str):
        return field(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10" + varint(value)
    if isinstance(value, int):
        return b"\x18" + varint(value)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    if isinstance(value, bytes):
        return field(7, value)
    return _nested_value(value)


def _nested_value(value: object) -> bytes:
    if isinstance(value, Mapping):
        return field(6, attributes(1, value))
    if isinstance(value, Sequence):
        return field(5, b"".join(field(1, _any_value(item)) for item in value))
    raise TypeError(f"an attribute cannot hold {type(value).__name__}")


def size_attribute(size: int) -> bytes:
    """The attribute for a body size in bytes."""
    encoded = SIZES.get(size)
    if encoded is None:
        encoded = attribute(9, SIZE, size)
        SIZES.put(size, encoded)
    return encoded


def link(trace_id: bytes, span_id: bytes, *, remote: bool) -> bytes:
    """A ``Span.links`` field (13). Like the SDK's encoder, it carries no trace state."""
    flags = b"\x00\x03\x00\x00" if remote else b"\x00\x01\x00\x00"
    return b"j\x21\n\x10%b\x12\x08%b5%b" % (trace_id, span_id, flags)


def identity(trace_id: bytes, span_id: bytes, parent_id: bytes, start_ns: int, end_ns: int) -> bytes:
    """Ids and times of a span; ``parent_id`` is empty for a root. Times are Unix time in nanoseconds."""
    if parent_id:
        return _CHILD(TRACE, trace_id, SPAN, span_id, PARENT, parent_id, 0x39, start_ns, 0x41, end_ns)
    return _ROOT(TRACE, trace_id, SPAN, span_id, 0x39, start_ns, 0x41, end_ns)


def times(start_ns: int, end_ns: int) -> bytes:
    """Start and end of a span that ended well, in Unix time, and its status."""
    return _TIMES(0x39, start_ns, 0x41, end_ns, STATUS_UNSET)


def status(error: str | None) -> bytes:
    """The status of a span that ended, and its ``error.type``."""
    return STATUS_UNSET if error is None else STATUS_ERROR + attribute(9, "error.type", error)


def framed(body: bytes) -> bytes:
    """A span as a ``ScopeSpans.spans`` field (2)."""
    return frame(len(body)) + body


def shared_size(size: int) -> int:
    """The same number, as one object for all who keep it where it is small."""
    return _NUMBERS[size] if size < SMALL else size


def frame(length: int) -> bytes:
    """Tag and length before a span of ``length`` bytes."""
    return FRAMES[length] if length < SMALL else b"\x12" + varint(length)


def fixed_fields(name: str, kind: int, attributes_of_all: Mapping[str, object]) -> bytes:
    """The fields of a span that its messages share: name (5), kind (6) and attributes (9).

    ``kind`` is the API's ``SpanKind`` value: it counts from INTERNAL = 0, the protocol from INTERNAL = 1.
    """
    return text(5, name) + b"0" + varint(kind + 1) + attributes(9, attributes_of_all)


class RequestFrame:
    """Wraps spans into an ``ExportTraceServiceRequest`` of one resource and one scope, both encoded once."""

    def __init__(
        self,
        resource: Mapping[str, object],
        resource_schema_url: str,
        scope_name: str,
        scope_version: str,
        scope_schema_url: str,
    ) -> None:
        self._resource = field(1, attributes(1, resource))
        self._resource_schema_url = text(3, resource_schema_url)
        self._scope = field(1, text(1, scope_name) + text(2, scope_version))
        self._scope_schema_url = text(3, scope_schema_url)

    def wrap(self, spans: Sequence[bytes]) -> list[bytes]:
        """A whole request, in pieces. ``spans`` are framed ``ScopeSpans.spans`` fields, joined as they may be."""
        scope_length = len(self._scope) + sum(map(len, spans)) + len(self._scope_schema_url)
        scope_head = b"\x12" + varint(scope_length)
        length = len(self._resource) + len(scope_head) + scope_length + len(self._resource_schema_url)
        head = b"\n" + varint(length) + self._resource + scope_head + self._scope
        return [head, *spans, self._scope_schema_url + self._resource_schema_url]
