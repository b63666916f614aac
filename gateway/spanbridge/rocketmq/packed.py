"""Bodies that their producers packed with zlib. No I/O."""

from __future__ import annotations

import zlib


def unpack(body: bytes, limit: int, *, window: int, damaged: str) -> tuple[bytes, str | None]:
    """A packed body unpacked, or as it is with the reason why it cannot be.

    Args:
        body: what was packed.
        limit: bytes that it may unpack to.
        window: zlib's window bits, which say what headers are taken.
        damaged: the reason where zlib cannot read it.
    """
    unpacker = zlib.decompressobj(window)
    try:
        plain = unpacker.decompress(body, limit)
    except zlib.error:
        return body, damaged
    if not unpacker.eof:
        whole = "is cut short" if not unpacker.unconsumed_tail else f"unpacks to more than {limit} bytes"
        return body, f"its packed body {whole}"
    return plain, None
