"""Just enough protobuf writing for OTLP traces (protobuf encoding guide; ``opentelemetry/proto/trace/v1/trace.proto``).

Field numbers are the proto files'. Everything returns bytes that are concatenated by the caller: field order does not
matter to a protobuf reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct

Attribute = str | bool | int | float | Sequence[str]
"""Attribute values that the gateway's own spans and OTEL_RESOURCE_ATTRIBUTES use."""

_DOUBLE = Struct("<d")
_CACHED_SPAN_LENGTH = 8192
_span_prefixes: dict[int, bytes] = {}


def varint(value: int) -> bytes:
    """A base-128 varint; negative numbers as 64-bit two's complement, ten bytes long."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field (string, bytes, embedded message)."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def text(number: int, value: str) -> bytes:
    """A string field; nothing when empty, as protobuf 3 does. Lone surrogates become ``?``."""
    return field(number, value.encode("utf-8", "replace")) if value else b""


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
    if isinstance(value, Sequence):
        return field(5, b"".join(field(1, _any_value(item)) for item in value))
    raise TypeError(f"an attribute cannot hold {type(value).__name__}")


def span_prefix(length: int) -> bytes:
    """Tag and length of a ``ScopeSpans.spans`` field (2) of that many bytes. Hot path: common lengths are kept."""
    prefix = _span_prefixes.get(length)
    if prefix is None:
        prefix = b"\x12" + varint(length)
        if length < _CACHED_SPAN_LENGTH:
            _span_prefixes[length] = prefix
    return prefix


def unprefixed(framed: bytes) -> bytes:
    """What follows tag and length in something that :func:`span_prefix` began."""
    start = 1
    while framed[start] > 127:
        start += 1
    return framed[start + 1 :]


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

    def wrap(self, spans: bytes) -> bytes:
        """A whole request. ``spans`` are framed ``ScopeSpans.spans`` fields."""
        scope_length = len(self._scope) + len(spans) + len(self._scope_schema_url)
        scope_head = b"\x12" + varint(scope_length)
        length = len(self._resource) + len(scope_head) + scope_length + len(self._resource_schema_url)
        return b"".join(
            (
                b"\n",
                varint(length),
                self._resource,
                scope_head,
                self._scope,
                spans,
                self._scope_schema_url,
                self._resource_schema_url,
            )
        )
