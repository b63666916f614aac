"""Just enough protobuf writing for RocketMQ messages and OTLP (protobuf's encoding guide).

Field numbers are the proto files'. Everything returns bytes that the caller joins: the order of fields does not matter
to a protobuf reader, and repeated length-delimited fields may be joined as well.
"""

from __future__ import annotations

_LOW64 = 0xFFFF_FFFF_FFFF_FFFF


def varint(value: int) -> bytes:
    """A base-128 varint; negative numbers as 64-bit two's complement, ten bytes long."""
    value &= _LOW64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


VARINTS = tuple(varint(number) for number in range(1024))
"""The varints of small numbers, for hot paths: most lengths are in it."""


SMALL = len(VARINTS)


def length(size: int) -> bytes:
    """The varint of a length."""
    return VARINTS[size] if size < SMALL else varint(size)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field (string, bytes, embedded message), wire type 2."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def integer(number: int, value: int) -> bytes:
    """A varint field (int32, int64, uint64, bool, enum), wire type 0."""
    return varint(number << 3) + varint(value)


def text(number: int, value: str) -> bytes:
    """A string field; nothing when empty, as protobuf 3 does. Lone surrogates become ``?``."""
    return field(number, value.encode("utf-8", "replace")) if value else b""


def timestamp(milliseconds: int) -> bytes:
    """The content of a ``google.protobuf.Timestamp``. ``milliseconds`` is Unix time; more is not kept."""
    seconds, rest = divmod(milliseconds, 1000)
    return b"\x08" + varint(seconds) + (b"\x10" + varint(rest * 1_000_000) if rest else b"")
