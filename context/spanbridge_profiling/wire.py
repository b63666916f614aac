"""Just enough protobuf writing for the two formats (protobuf's encoding guide). Field numbers are the proto files'."""

from __future__ import annotations

from collections.abc import Iterable


def varint(value: int) -> bytes:
    """A base-128 varint; negative numbers as 64-bit two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field (string, bytes, embedded message), wire type 2."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def integer(number: int, value: int) -> bytes:
    """A varint field, wire type 0; nothing for 0, as protobuf 3 does."""
    return varint(number << 3) + varint(value) if value else b""


def fixed64(number: int, value: int) -> bytes:
    """A fixed64 field, wire type 1."""
    return varint(number << 3 | 1) + value.to_bytes(8, "little")


def packed(number: int, values: Iterable[int]) -> bytes:
    """A repeated varint field in its packed form; nothing when empty."""
    content = b"".join(map(varint, values))
    return field(number, content) if content else b""


def text(number: int, value: str) -> bytes:
    """A string field; nothing when empty. Lone surrogates become ``?``."""
    return field(number, value.encode("utf-8", "replace")) if value else b""
