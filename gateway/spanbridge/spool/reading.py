"""Reading segments: in order, from any number on, past what is spoiled."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from spanbridge.core.spooled import Lost, Record
from spanbridge.spool import records as form
from spanbridge.spool.disk import Disk, SpoolFile
from spanbridge.spool.holes import Holes
from spanbridge.spool.records import Name, RecordPlace


@dataclass(slots=True)
class Segment:
    """A file of records. ``size`` is what of it is on the disk for certain, in bytes; ``begin`` where records begin.

    ``meta`` is what was written into its head; empty where that cannot be read. ``places`` are numbers and offsets of
    some of its records, in order: a reader that comes back begins there.
    """

    name: Name
    size: int
    begin: int = 0
    meta: dict[str, object] = field(default_factory=dict)
    places: list[tuple[int, int]] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The number of its first record."""
        return self.name.first


class StoreCursor:
    """Where a reader of the store is. Made by :meth:`.store.Store.cursor`; it goes on when records come in."""

    __slots__ = ("number", "offset", "segment")

    def __init__(self, number: int) -> None:
        self.number = number
        self.segment: Segment | None = None
        self.offset = 0


class SegmentReader:
    """Reads ``segments``, oldest first, a live view."""

    def __init__(self, disk: Disk, segments: list[Segment]) -> None:
        self._disk = disk
        self._segments = segments

    def scan(
        self, segment: Segment, place: RecordPlace, limit: int | None, *, past_errors: bool = False
    ) -> Iterator[list[Record | Lost]]:
        """What a segment holds from ``place`` on, in runs. ``limit`` as in :func:`.records.read_records`.

        :raises OSError: the disk fails.
        """
        file: SpoolFile = self._open(segment, past_errors=past_errors)
        try:
            if not segment.begin:
                content, segment.begin = form.read_head(file)
                segment.meta = _meta(content)
            place.offset = max(place.offset, segment.begin)
            yield from form.read_records(file, segment.first, segment.name.salt, place, segment.size, limit)
        finally:
            file.close()

    def _open(self, segment: Segment, *, past_errors: bool) -> SpoolFile:
        try:
            file = self._disk.open(str(segment.name))
        except FileNotFoundError:
            if past_errors:
                return Holes(None)
            raise
        return Holes(file) if past_errors else file

    def read(
        self, cursor: StoreCursor, end: int, count: int, size: int, *, past_errors: bool = False
    ) -> list[Record | Lost]:
        """The next records before number ``end``: up to about so many, and so many bytes.

        ``past_errors``: what the disk does not read is lost.

        :raises OSError: the disk fails; the cursor stays where it was.
        """
        found: list[Record | Lost] = []
        number, segment, offset = cursor.number, cursor.segment, cursor.offset
        try:
            while len(found) < count and size > 0 and cursor.number < end:
                size -= self._read_segment(cursor, end, found, count, size, past_errors=past_errors)
        except OSError:
            cursor.number, cursor.segment, cursor.offset = number, segment, offset
            raise
        return found

    def _read_segment(
        self, cursor: StoreCursor, end: int, found: list[Record | Lost], count: int, size: int, *, past_errors: bool
    ) -> int:
        """Read on in the segment that the cursor is in; return how many bytes that were."""
        index = self.index(cursor.number)
        if index is None:
            found.append(Lost(cursor.number, end))
            cursor.number = end
            return 0
        segment = self._segments[index]
        limit = self._segments[index + 1].first if index + 1 < len(self._segments) else end
        if cursor.number < segment.first:
            found.append(Lost(cursor.number, segment.first))
            cursor.number = segment.first
        if cursor.segment is not segment:
            cursor.segment, cursor.offset = segment, 0
        place = RecordPlace(cursor.offset, cursor.number) if cursor.offset else _place(segment, cursor.number)
        before, wanted = cursor.offset, cursor.number
        for run in self.scan(segment, place, limit, past_errors=past_errors):
            kept = run if run[0][0] >= wanted else _from(wanted, run)  # either kind begins with its number
            if not segment.places or place.number > segment.places[-1][0]:
                segment.places.append((place.number, place.offset))
            if not kept:
                before = place.offset  # what is only passed over does not count
                continue
            found += kept
            cursor.number, cursor.offset = place.number, place.offset
            if len(found) >= count or place.offset - before >= size:
                return place.offset - before
        cursor.number, cursor.offset = max(cursor.number, limit), segment.size
        return segment.size - before

    def index(self, number: int) -> int | None:
        """The segment that holds a record, or the next one that there is."""
        if not self._segments:
            return None
        return max(0, bisect_right(self._segments, number, key=lambda segment: segment.first) - 1)


def _place(segment: Segment, number: int) -> RecordPlace:
    """Where to begin reading a segment for the sake of one of its records."""
    at = bisect_right(segment.places, number, key=lambda place: place[0])
    known, offset = segment.places[at - 1] if at else (segment.first, 0)
    return RecordPlace(offset, known)


def _from(wanted: int, run: list[Record | Lost]) -> list[Record | Lost]:
    """What of a run has the number ``wanted``, or a later one."""
    kept: list[Record | Lost] = []
    for one in run:
        if isinstance(one, Record):
            if one.number >= wanted:
                kept.append(one)
        elif one.end > wanted:
            kept.append(Lost(max(one.first, wanted), one.end))
    return kept


def _meta(content: bytes | None) -> dict[str, object]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
