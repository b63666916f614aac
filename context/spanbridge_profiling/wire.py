"""Just enough protobuf, written and read (protobuf's encoding guide). Field numbers are the proto files'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


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


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, each as its number and its value: an integer, or what a length was before.

    :raises ValueError: it is no message, or cut short.
    """
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        wire_type = key & 7
        if wire_type == 0:
            value, at = read_varint(data, at)
            yield key >> 3, value
            continue
        if wire_type == 2:
            size, at = read_varint(data, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
        if at + size > len(data):
            raise ValueError("the message is cut short")
        content, at = data[at : at + size], at + size
        yield key >> 3, content if wire_type == 2 else int.from_bytes(content, "little")


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends.

    :raises ValueError: it has more than 64 bits, or is cut short.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the message is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number with more than 64 bits at byte {at}")
