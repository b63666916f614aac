"""Unpacks LZ4 frames (LZ4 Frame Format Description 1.6.4, LZ4 Block Format Description). No I/O.

One frame, its blocks linked or not, without a dictionary. Its checksums are passed over: what a broker stores has
one of its own.
"""

from __future__ import annotations

import struct
from typing import Final

MAGIC: Final = b"\x04\x22\x4d\x18"
_SIZE: Final = struct.Struct("<I")
_BLOCK_CHECKSUM, _CONTENT_SIZE, _CONTENT_CHECKSUM, _RESERVED, _DICTIONARY = 0x10, 0x08, 0x04, 0x02, 0x01
_VERSION: Final = 0x40
_STORED: Final = 0x8000_0000
"""In a block's size: it is not compressed."""
_LONG: Final = 15
"""In a token: the length goes on behind it."""
_LEAST_MATCH: Final = 4


class Lz4Error(Exception):
    """Says what a frame that cannot be unpacked is or does: "is cut short"."""


def unpack_lz4(frame: bytes, limit: int) -> bytes:
    """What a frame holds, at most ``limit`` bytes.

    :raises Lz4Error: that is more, or ``frame`` is not one whole frame.
    """
    try:
        flags, at = _header(frame)
        made = bytearray()
        while size := _SIZE.unpack_from(frame, at)[0]:
            at += _SIZE.size
            block = frame[at : at + (size & ~_STORED)]
            if len(block) < size & ~_STORED:
                raise Lz4Error("is cut short")
            if size & _STORED:
                made += block
            else:
                _unpack_block(block, made, limit)
            if len(made) > limit:
                raise _too_large(limit)
            at += len(block) + (_SIZE.size if flags & _BLOCK_CHECKSUM else 0)
    except (struct.error, IndexError):
        raise Lz4Error("is cut short") from None
    at += _SIZE.size * (2 if flags & _CONTENT_CHECKSUM else 1)
    if at != len(frame):
        raise Lz4Error("is cut short" if at > len(frame) else "is damaged")
    return bytes(made)


def _header(frame: bytes) -> tuple[int, int]:
    """The frame's flags (FLG), and where its first block begins."""
    flags = frame[4]
    if not frame.startswith(MAGIC) or flags & 0xC0 != _VERSION or flags & _RESERVED:
        raise Lz4Error("is damaged")
    if flags & _DICTIONARY:
        raise Lz4Error("needs a dictionary")
    return flags, 15 if flags & _CONTENT_SIZE else 7


def _unpack_block(block: bytes, made: bytearray, limit: int) -> None:
    """Add what a block holds to what was made of those before, which it may repeat.

    A sequence is literals, then bytes to repeat; the last has literals alone. Hot path: no calls for short ones.

    :raises IndexError: it ends too early.
    """
    at, end, held = 0, len(block), len(made)
    while at < end:
        token = block[at]
        at += 1
        size = token >> 4
        if size:
            if size == _LONG:
                size, at = _long(block, at)
            made += block[at : at + size]
            at += size
            held += size
        if at >= end:
            break
        offset = block[at] | block[at + 1] << 8
        at += 2
        size = token & 15
        if size == _LONG:
            size, at = _long(block, at)
        size += _LEAST_MATCH
        start, held = held - offset, held + size
        if start < 0 or not offset:
            raise Lz4Error("is damaged")
        if held > limit:
            raise _too_large(limit)
        if size <= offset:
            made += made[start : start + size]
        else:  # it repeats what it adds
            made += (made[start:] * (size // offset + 1))[:size]
    if at != end:
        raise Lz4Error("is damaged")


def _long(block: bytes, at: int) -> tuple[int, int]:
    """A length that does not fit into its token, and where the next field begins."""
    size, more = _LONG, 255
    while more == 255:
        more = block[at]
        size, at = size + more, at + 1
    return size, at


def _too_large(limit: int) -> Lz4Error:
    return Lz4Error(f"unpacks to more than {limit} bytes")
