"""Bodies that their producers packed: with zlib, gzip, LZ4 or Zstandard. No I/O.

The first bytes say which it is: the proxy calls all of them GZIP, whatever the producer's flags were.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final

from spanbridge.rocketmq.lz4 import MAGIC as _LZ4
from spanbridge.rocketmq.lz4 import Lz4Error, unpack_lz4

_ZSTANDARD: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878 section 3.1.1
_ZLIB_OR_GZIP: Final = 47
"""Window bits with which zlib takes either header."""


class _PackedError(Exception):
    """Says what a packed body is or does: "is cut short"."""


def unpack(body: bytes, limit: int) -> tuple[bytes, str | None]:
    """A packed body unpacked, or as it is with the reason why it cannot be. ``limit``: bytes that it may unpack to."""
    try:
        if body.startswith(_LZ4):
            return unpack_lz4(body, limit), None
        if body.startswith(_ZSTANDARD):
            return _unpack_zstandard(body, limit), None
        return _unpack_zlib(body, limit), None
    except (Lz4Error, _PackedError) as error:
        return body, f"its packed body {error}"


def _unpack_zlib(body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        plain = unpacker.decompress(body, limit)
    except zlib.error:
        raise _PackedError("is none of zlib, gzip, LZ4 and Zstandard, or damaged") from None
    if not unpacker.eof:
        raise _PackedError("is cut short" if not unpacker.unconsumed_tail else f"unpacks to more than {limit} bytes")
    return plain


def _unpack_zstandard(body: bytes, limit: int) -> bytes:
    zstd = _zstandard()
    if zstd is None:
        raise _PackedError("is Zstandard, which takes the extra `zstd` of the gateway")
    unpacker = zstd.ZstdDecompressor()
    try:
        plain: bytes = unpacker.decompress(body, limit + 1)
    except zstd.ZstdError:
        raise _PackedError("is damaged") from None
    if len(plain) > limit:
        raise _PackedError(f"unpacks to more than {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise _PackedError("is cut short" if not unpacker.eof else "is damaged")
    return plain


@cache
def _zstandard() -> Any:
    """The standard library's module (Python 3.14) or what stands for it; None where there is neither."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return import_module(name)
    return None
