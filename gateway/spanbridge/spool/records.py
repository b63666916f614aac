"""Segments, records and watermarks as bytes. No I/O but reading a file that is handed over.

A segment is named ``FIRST-ATTEMPT-SALT.seg``: the number of its first record, how many segments were begun with that
number before, and a random number that its checksums begin with, so that no payload can hold what would pass for a
record. It starts with a head (magic, length and checksum of a JSON object), then records follow::

    0xC5 | kind u8 | length u32 | number - FIRST u32 | CRC32 u32 | body        (little-endian)

The checksum covers everything but itself. The watermark is a file of two slots, written in turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from spanbridge.core.spooled import Lost, Record

if TYPE_CHECKING:
    from spanbridge.spool.disk import SpoolFile

HEAD = Struct("<8sII")
MAGIC = b"sbspool1"
_START = Struct("<BBII")
_CHECKSUM = Struct("<I")
_RECORD = Struct("<BBIII")
OVERHEAD = _RECORD.size
_CHECKED = _START.size
_FIRST_BYTE = 0xC5
LARGEST = 300 << 20
"""Bytes of a record: MQTT packets have 256 MiB at most."""
_LARGEST_HEAD = 64 * 1024
_CHUNK = 256 * 1024
_NAME = re.compile(r"(\d{20})-([0-9a-f]{4,})-([0-9a-f]{8})\.seg")
"""A disk that fails for hours takes more attempts than four digits can count."""

_SLOT = Struct("<4sIQQ")
SLOT_BYTES = _SLOT.size + _CHECKSUM.size
SLOT_AT = (0, 4096)
"""Where the two slots are: on pages of their own, so that one torn write spoils one of them."""


class Name(NamedTuple):
    """A segment's name. Names sort in the order in which segments were begun."""

    first: int
    attempt: int
    salt: int

    def __str__(self) -> str:
        return f"{self.first:020d}-{self.attempt:04x}-{self.salt:08x}.seg"


def parse_name(text: str) -> Name | None:
    """A segment by its file name; None for another file."""
    match = _NAME.fullmatch(text)
    return None if match is None else Name(int(match[1]), int(match[2], 16), int(match[3], 16))


def head(content: bytes) -> bytes:
    """The start of a segment."""
    return HEAD.pack(MAGIC, len(content), crc32(content)) + content


def read_head(file: SpoolFile) -> tuple[bytes | None, int]:
    """A segment's head and where its records begin. None: it cannot be read, and records are to be searched for."""
    raw = file.read(HEAD.size, 0)
    if len(raw) == HEAD.size:
        magic, length, checksum = HEAD.unpack(raw)
        if magic == MAGIC and length <= _LARGEST_HEAD:
            content = file.read(length, HEAD.size)
            if len(content) == length and crc32(content) == checksum:
                return content, HEAD.size + length
    return None, 0


def encode(records: Sequence[tuple[int, bytes]], offset: int, salt: int) -> bytes:
    """Records, as (kind, body), of a segment; ``offset`` is how far the first one's number is from the segment's."""
    parts: list[bytes] = []
    start, checksum = _START.pack, _CHECKSUM.pack
    for kind, body in records:
        begin = start(_FIRST_BYTE, kind, len(body), offset)
        parts += (begin, checksum(crc32(body, crc32(begin, salt))), body)
        offset += 1
    return b"".join(parts)


@dataclass(slots=True)
class RecordPlace:
    """Where reading a segment has got to: an offset in bytes, and the number that is expected there."""

    offset: int
    number: int


def read_records(  # noqa: PLR0917
    file: SpoolFile, first: int, salt: int, place: RecordPlace, end: int, limit: int | None
) -> Iterator[list[Record | Lost]]:
    """The records of a segment from ``place`` on, in runs, and what is missing between them. ``place`` moves along.

    ``end`` is the size in bytes to read up to. Records from number ``limit`` on are not this segment's: the next one
    has them. None stands for the last segment, whose end says nothing about what was lost there.
    """
    while place.offset < end:
        buffer = file.read(min(_CHUNK, end - place.offset), place.offset)
        if run := _run(buffer, first, salt, place, limit):
            yield run
            continue
        found = _record(buffer, 0, first, salt, place.number, limit)
        if isinstance(found, int) and place.offset + found <= end:  # it goes on after this chunk
            found = _record(file.read(found, place.offset), 0, first, salt, place.number, limit)
        if not isinstance(found, Record):
            start = _search(file, first, salt, place, end, limit)
            if start is None:
                break
            place.offset = start
            continue
        run = [found] if found.number == place.number else [Lost(place.number, found.number), found]
        place.offset += OVERHEAD + len(found.body)
        place.number = found.number + 1
        yield run
    place.offset = end
    if limit is not None and place.number < limit:
        expected, place.number = place.number, limit
        yield [Lost(expected, limit)]


def _run(buffer: bytes, first: int, salt: int, place: RecordPlace, limit: int | None) -> list[Record | Lost]:
    """The records that follow one another at the start of a buffer, as far as all is well with them. Hot path."""
    found: list[Record | Lost] = []
    unpack, checked, make, append = _RECORD.unpack_from, crc32, tuple.__new__, found.append
    at, size, number = 0, len(buffer), place.number
    end, last = OVERHEAD, size if limit is None else limit - number
    for expected in range(number - first, number - first + last):
        if end > size:
            break
        magic, kind, length, offset, checksum = unpack(buffer, at)
        body = buffer[end : (stop := end + length)]
        if magic != _FIRST_BYTE or not kind or offset != expected or stop > size:
            break
        if checked(body, checked(buffer[at : at + _CHECKED], salt)) != checksum:
            break
        append(make(Record, (number, kind, body)))
        at, number = stop, number + 1
        end = at + OVERHEAD
    place.offset += at
    place.number = number
    return found


def _record(buffer: bytes, at: int, first: int, salt: int, least: int, limit: int | None) -> Record | int | None:  # noqa: PLR0917
    """The record at an offset of a buffer; how many bytes it has when it goes on after it; None when there is none."""
    if at + OVERHEAD > len(buffer):
        return None
    magic, kind, length, offset, checksum = _RECORD.unpack_from(buffer, at)
    number = first + offset
    if magic != _FIRST_BYTE or not kind or length > LARGEST or number < least:
        return None
    if limit is not None and number >= limit:
        return None
    end = at + OVERHEAD + length
    if end > len(buffer):
        return OVERHEAD + int(length)
    body = buffer[at + OVERHEAD : end]
    if crc32(body, crc32(buffer[at : at + _START.size], salt)) != checksum:
        return None
    return Record(number, kind, body)


def _search(  # noqa: PLR0917
    file: SpoolFile, first: int, salt: int, place: RecordPlace, end: int, limit: int | None
) -> int | None:
    """The offset of the next record after a spoiled one; None when there is none.

    A segment full of what looks like the start of a record is given up rather than gone through for hours.
    """
    offset, budget = place.offset + 1, 16 * (end - place.offset)
    while offset < end and budget > 0:
        window = file.read(min(_CHUNK, end - offset), offset)
        at = window.find(_FIRST_BYTE)
        while at >= 0 and budget > 0:
            if len(window) - at < OVERHEAD and at and offset + len(window) < end:
                break  # its start goes on after this window: the next one begins with it
            found = _record(window, at, first, salt, place.number, limit)
            if isinstance(found, int) and offset + at + found <= end:
                budget -= found
                found = _record(file.read(found, offset + at), 0, first, salt, place.number, limit)
            if isinstance(found, Record):
                return offset + at
            budget -= min(int.from_bytes(window[at + 2 : at + 6], "little"), len(window) - at)
            at = window.find(_FIRST_BYTE, at + 1)
        offset += at if at > 0 else max(1, len(window))
    return None


class Mark(NamedTuple):
    """A watermark: records before ``number`` are done. ``generation`` counts how often it was written."""

    generation: int
    number: int


def encode_mark(mark: Mark) -> bytes:
    """A slot of the watermark file."""
    content = _SLOT.pack(b"sbwm", 1, mark.generation, mark.number)
    return content + _CHECKSUM.pack(crc32(content))


def decode_marks(raw: bytes) -> list[Mark]:
    """The watermarks that a file holds, oldest first; without those that are spoiled."""
    found = []
    for at in SLOT_AT:
        slot = raw[at : at + SLOT_BYTES]
        if len(slot) == SLOT_BYTES and slot[-4:] == _CHECKSUM.pack(crc32(slot[:-4])):
            magic, version, generation, number = _SLOT.unpack(slot[:-4])
            if magic == b"sbwm" and version == 1:
                found.append(Mark(generation, number))
    return sorted(found)
