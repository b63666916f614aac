"""Header blocks (RFC 7541) without a dynamic table: we index nothing, and our settings leave the peer no table."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from spanbridge.rocketmq.grpc.http2.errors import Http2Error

# Lengths of the codes of the 257 symbols (RFC 7541 appendix B). The codes follow: they are canonical.
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_END_OF_STRING = 256
_SHORT = 256
"""Bytes."""
# The entries of the static table (appendix A) that an answer is read for.
_STATIC_ENTRIES = 61
_STATUSES = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}


def _codes() -> dict[tuple[int, int], int]:
    """Symbols by the length and the value of their codes."""
    codes: dict[tuple[int, int], int] = {}
    code = length = 0
    for size, symbol in sorted((size, symbol) for symbol, size in enumerate(_LENGTHS)):
        code <<= size - length
        length = size
        codes[size, code] = symbol
        code += 1
    return codes


_CODES = _codes()


def encode(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that nobody is to index (section 6.2.2)."""
    return b"".join([_literal(name, value) for name, value in headers])


def _literal(name: str, value: str) -> bytes:
    key, text = name.encode("ascii"), value.encode("ascii", "replace")
    before, between = len(key), len(text)
    return b"".join((
        b"\0", _ONE_BYTE[before] if before < 127 else _length(before), key,
        _ONE_BYTE[between] if between < 127 else _length(between), text,
    ))  # fmt: skip


_ONE_BYTE = tuple(bytes((size,)) for size in range(127))
"""Lengths of one byte."""


def _length(size: int) -> bytes:
    """A length of 127 and more (section 5.1)."""
    rest = size - 127
    octets = bytearray((127,))
    while rest >= 128:
        octets.append(rest & 127 | 128)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)


def decode(block: bytes) -> dict[str, str]:
    """The headers of a block by name; those with a name from the static table only as far as they matter here.

    Not to be changed: most blocks are the same in answer after answer, and what a short one means is kept.

    :raises Http2Error: it is malformed, or needs a table that we did not allow.
    """
    return _usual(block) if len(block) <= _SHORT else _decode(block)


def _decode(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    position = 0
    try:
        while position < len(block):
            position = _field(block, position, headers)
    except IndexError:
        raise Http2Error("a header block ends too early") from None
    return headers


_usual = lru_cache(64)(_decode)


def _field(block: bytes, position: int, headers: dict[str, str]) -> int:
    first = block[position]
    if first & 0x80:  # section 6.1, indexed
        index, position = _integer(block, position, 7)
        if index in _STATUSES:
            headers[":status"] = _STATUSES[index]
        return _known(index, position)
    if first & 0xE0 == 0x20:  # section 6.3, size update
        size, position = _integer(block, position, 5)
        if size:
            raise Http2Error("a header table that was not allowed")
        return position
    index, position = _integer(block, position, 6 if first & 0x40 else 4)
    if index:
        name = ":status" if index in _STATUSES else ""
        position = _known(index, position)
    else:
        name, position = _text(block, position)
    value, position = _text(block, position)
    if name:
        headers[name] = value
    return position


def _known(index: int, position: int) -> int:
    if not 0 < index <= _STATIC_ENTRIES:
        raise Http2Error("a header table that was not allowed")
    return position


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    """An integer with a prefix of so many bits (section 5.1)."""
    most = (1 << bits) - 1
    value = block[position] & most
    position += 1
    if value < most:
        return value, position
    for shift in range(0, 35, 7):
        octet = block[position]
        position += 1
        value += (octet & 127) << shift
        if not octet & 128:
            return value, position
    raise Http2Error("an integer in a header block is too large")


def _text(block: bytes, position: int) -> tuple[str, int]:
    """A string literal (section 5.2)."""
    packed = block[position] & 0x80
    size, position = _integer(block, position, 7)
    raw = block[position : position + size]
    if len(raw) < size:
        raise IndexError
    return (_unpacked(raw) if packed else raw).decode("latin-1"), position + size


def _unpacked(raw: bytes) -> bytes:
    """What Huffman's code packed. The padding is the start of the end-of-string symbol's code: ones."""
    text = bytearray()
    code = length = 0
    for octet in raw:
        for shift in range(7, -1, -1):
            code = code << 1 | octet >> shift & 1
            length += 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                if symbol == _END_OF_STRING:
                    raise Http2Error("the end of a string inside a string")
                text.append(symbol)
                code = length = 0
            elif length > 30:
                raise Http2Error("a string that does not decode")
    if length > 7 or code != (1 << length) - 1:
        raise Http2Error("a string that ends inside a symbol")
    return bytes(text)
