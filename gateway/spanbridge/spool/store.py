"""The store: numbered records in segments, oldest first, with a watermark below which all are done.

Synchronous, for one thread. Nothing is kept in memory but the list of segments. It is opened by its watermark: of the
segments only the last one is read.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from spanbridge.core.spooled import Lost, Record
from spanbridge.spool import records as form
from spanbridge.spool.disk import Disk, SpoolFile
from spanbridge.spool.errors import SpoolFault, SpoolFull, SpoolRefused, fault_of
from spanbridge.spool.records import Mark, Name, RecordPlace

VERSION = 1
_VERSION_FILE = "version"
_WATERMARK = "watermark"
_OURS = frozenset({_VERSION_FILE, _WATERMARK, "lock", "rejected", "lost+found"})


@dataclass(slots=True)
class Segment:
    """A file of records. ``size`` is what of it is on the disk for certain, in bytes; ``begin`` where records begin.

    ``meta`` is what was written into its head; empty where that cannot be read.
    """

    name: Name
    size: int
    begin: int = 0
    meta: dict[str, object] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The number of its first record."""
        return self.name.first


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """``segment`` is the size at which a segment is full, ``total`` what all may take, ``reserve`` what the file
    system keeps free. In bytes."""

    segment: int = 16 << 20
    total: int = 1 << 30
    reserve: int = 64 << 20


class StoreCursor:
    """Where a reader of the store is. Made by :meth:`Store.cursor`; it goes on when records come in."""

    __slots__ = ("number", "offset", "segment")

    def __init__(self, number: int) -> None:
        self.number = number
        self.segment: Segment | None = None
        self.offset = 0


class Store:
    """The records of one directory.

    :raises SpoolRefused: the directory is another program's, of another version, or in use by another gateway.
    :raises SpoolFault: the disk fails.
    """

    def __init__(
        self,
        disk: Disk,
        limits: StoreLimits,
        *,
        read_only: bool = False,
        salt: Callable[[], int] = lambda: secrets.randbits(32),
    ) -> None:
        self._disk = disk
        self._salt = salt
        self.limits = limits
        self.segments: list[Segment] = []
        self.watermark = 0
        self.next = 0
        self._generation = 0
        self._read_only = read_only
        self._file: SpoolFile | None = None
        self._marks: SpoolFile | None = None
        self._meta: dict[str, object] = {}
        self._doomed: list[Segment] = []
        self._last = Name(0, 0, 0)
        """The name that was given last."""
        try:
            self._open()
        except OSError as error:
            raise fault_of(error, "opening the spool") from None

    # Opening

    def _open(self) -> None:
        names = self._disk.names()
        strangers = sorted(name for name in names if name not in _OURS and form.parse_name(name) is None)
        if strangers:
            raise SpoolRefused(f"the spool's directory holds other files ({strangers[0]!r}): give it one of its own")
        if not self._read_only and not self._disk.lock():
            raise SpoolRefused("another gateway uses this spool: give each gateway a directory of its own")
        self._check_version(names)
        if not self._read_only:
            self._begin_marks(names)
        elif _WATERMARK in names:
            self._read_marks()
        found = sorted((name, size) for text, size in names.items() if (name := form.parse_name(text)) is not None)
        self.segments = [Segment(name, size) for name, size in found]
        self._last = found[-1][0] if found else Name(0, 0, 0)
        self._find_end()
        self._retire()

    def _check_version(self, names: dict[str, int]) -> None:
        text = b"spanbridge spool %d\n" % VERSION
        if _VERSION_FILE in names:
            file = self._disk.open(_VERSION_FILE)
            try:
                found = file.read(256, 0)
            finally:
                file.close()
            if found == text:
                return
            if found and not text.startswith(found):
                words = found.decode("ascii", "replace").split()
                version = words[2] if len(words) == 3 and words[:2] == ["spanbridge", "spool"] else "unknown"
                raise SpoolRefused(
                    f"the spool is of version {version}, and this gateway reads version {VERSION}: empty it with the "
                    "gateway that wrote it, or name another directory"
                )
            if not self._read_only:
                self._disk.unlink(_VERSION_FILE)  # the start ended while it was written: there is nothing else yet
        if any(form.parse_name(name) for name in names):
            raise SpoolRefused("the spool has no readable `version` file: write `spanbridge spool 1` into it")
        if not self._read_only:
            self._write_new(_VERSION_FILE, text)

    def _begin_marks(self, names: dict[str, int]) -> None:
        """Have room for both slots from the start: on a full disk, it is the watermark that makes room."""
        whole = form.SLOT_AT[1] * 2
        if _WATERMARK not in names:
            self._write_new(_WATERMARK, bytes(whole))
        self._read_marks()
        size = names.get(_WATERMARK, whole)
        if size < whole and self._marks is not None:  # a start ended while it was made
            _write_all_at(self._marks, bytes(whole - size), size)
            self._marks.sync()

    def _read_marks(self) -> None:
        marks = self._disk.open(_WATERMARK, write=not self._read_only)
        found = form.decode_marks(marks.read(form.SLOT_AT[1] + form.SLOT_BYTES, 0))
        if found:
            self._generation, self.watermark = found[-1]
        if self._read_only:
            marks.close()
        else:
            self._marks = marks

    def _write_new(self, name: str, content: bytes) -> None:
        file = self._disk.create(name)
        try:
            _write_all(file, content)
            file.sync()
        finally:
            file.close()
        self._disk.sync()

    def _find_end(self) -> None:
        """Find the number of the next record, by the last segment that holds one; forget those that hold none."""
        self.next = self.watermark
        while self.segments:
            last = self.segments[-1]
            number = None
            for record in self._scan(last, RecordPlace(0, last.first), None):
                if isinstance(record, Record):
                    number = record.number
            if number is not None:
                self.next = max(self.next, number + 1)
                return
            if self._read_only:
                return
            self._doomed.append(self.segments.pop())
            # The watermark does not go back, and neither does what was given out before.
            self.next = max(self.next, last.first)

    def _scan(self, segment: Segment, place: RecordPlace, limit: int | None) -> Iterator[Record | Lost]:
        file = self._disk.open(str(segment.name))
        try:
            if not segment.begin:
                content, segment.begin = form.read_head(file)
                segment.meta = _meta(content)
            place.offset = max(place.offset, segment.begin)
            yield from form.read_records(file, segment.first, segment.name.salt, place, segment.size, limit)
        finally:
            file.close()

    # Writing

    def describe(self, meta: dict[str, object]) -> None:
        """What the heads of segments say from now on: a JSON object. Another one begins another segment."""
        if meta != self._meta:
            self._meta = dict(meta)
            self._end_segment()

    @property
    def size(self) -> int:
        """What the segments take on the disk."""
        return sum(segment.size for segment in self.segments)

    def room(self) -> int:
        """Bytes that may be written before the size that is configured or the reserve stops it.

        :raises SpoolFault: the file system does not say.
        """
        try:
            free = self._disk.free() - self.limits.reserve
        except OSError as error:
            raise fault_of(error, "looking for free space") from None
        return min(self.limits.total - self.size, free)

    def commit(self, batch: Sequence[tuple[int, bytes]]) -> int:
        """Write records, as (kind, body); return the number of the first once all are on the disk.

        After a failure nothing of the batch counts, and the next one begins a new segment: what became of pages whose
        fsync failed nobody can tell (PostgreSQL's "fsyncgate").

        :raises SpoolFull: there is no room.
        :raises SpoolFault: the disk fails.
        """
        first = self.next
        if sum(len(body) for _, body in batch) + len(batch) * form.OVERHEAD > self.room():
            raise SpoolFull("the spool holds as much as it may")
        try:
            segment, file, fresh = self._current()
            data = form.encode(batch, first - segment.first, segment.name.salt)
            _write_all(file, data)
            file.sync()
            if fresh:
                self._disk.sync()
        except OSError as error:
            self._abandon()
            raise fault_of(error, "writing to the spool") from None
        segment.size += len(data)
        self.next = first + len(batch)
        if segment.size >= self.limits.segment:
            self._end_segment()
        return first

    def _current(self) -> tuple[Segment, SpoolFile, bool]:
        """The segment that is written, its file, and whether its name is yet to be put on the disk.

        :raises OSError: a new one could not be made.
        """
        if self._file is not None:
            return self.segments[-1], self._file, False
        attempt = self._last.attempt + 1 if self._last.first == self.next else 0
        self._last = Name(self.next, attempt, self._salt())
        segment = Segment(self._last, 0, meta=self._meta)
        self._file = self._disk.create(str(segment.name))
        self.segments.append(segment)
        start = form.head(json.dumps(self._meta).encode())
        _write_all(self._file, start)
        segment.begin = segment.size = len(start)
        return segment, self._file, True

    def _abandon(self) -> None:
        """Write no more to this segment. What of it was on the disk before stays; one that held nothing goes."""
        if self._file is None:
            return
        self._end_segment()
        segment = self.segments[-1]
        if segment.size <= segment.begin:
            self.segments.pop()
            self._doomed.append(segment)
            self._clean()

    def _end_segment(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    # Finishing

    def mark(self, number: int, *, tidy: bool = False) -> None:
        """Records before ``number`` are done: write that down, then remove segments that hold no others.

        The one that is written stays unless ``tidy``: more may follow at once.

        :raises SpoolFault: the disk fails; nothing is removed then.
        """
        if number <= self.watermark:
            self._retire(tidy=tidy)
            return
        number = min(max(number, self.watermark), self.next)
        mark = Mark(self._generation + 1, number)
        try:
            assert self._marks is not None
            _write_all_at(self._marks, form.encode_mark(mark), form.SLOT_AT[mark.generation % 2])
            self._marks.sync()
        except OSError as error:
            raise fault_of(error, "writing the spool's watermark") from None
        self._generation, self.watermark = mark
        self._retire(tidy=tidy)

    def _retire(self, *, tidy: bool = True) -> None:
        """Give up segments that lie below the watermark."""
        while len(self.segments) > 1 and self.segments[1].first <= self.watermark:
            self._doomed.append(self.segments.pop(0))
        if len(self.segments) == 1 and self.next <= self.watermark and (tidy or self._file is None):
            self._end_segment()
            self._doomed.append(self.segments.pop())
        self._clean()

    def _clean(self) -> None:
        """Remove files that nobody needs any more. What fails is tried again the next time."""
        if self._read_only or not self._doomed:
            return
        left = []
        for segment in self._doomed:
            try:
                self._disk.unlink(str(segment.name))
            except FileNotFoundError:
                continue
            except OSError:
                left.append(segment)
        self._doomed = left
        with contextlib.suppress(OSError):  # names that come back hold records below the watermark
            self._disk.sync()

    # Reading

    def cursor(self, number: int | None = None) -> StoreCursor:
        """A reader that begins at a record, or at the watermark."""
        return StoreCursor(max(self.watermark, self.watermark if number is None else number))

    def read(self, cursor: StoreCursor, count: int, size: int) -> list[Record | Lost]:
        """The next records, up to about ``count`` and ``size`` bytes; empty at the end.

        What cannot be read is passed over and told as :class:`Lost`.

        :raises SpoolFault: the disk fails; the cursor stays where it was.
        """
        found: list[Record | Lost] = []
        number, segment, offset = cursor.number, cursor.segment, cursor.offset
        try:
            if cursor.number < self.watermark:
                cursor.number, cursor.segment = self.watermark, None
            while len(found) < count and size > 0 and cursor.number < self.next:
                size -= self._read_segment(cursor, found, count, size)
        except OSError as error:
            cursor.number, cursor.segment, cursor.offset = number, segment, offset
            raise fault_of(error, "reading the spool") from None
        return found

    def _read_segment(self, cursor: StoreCursor, found: list[Record | Lost], count: int, size: int) -> int:
        """Read on in the segment that the cursor is in; return how many bytes that were."""
        index = self._index(cursor.number)
        if index is None:
            found.append(Lost(cursor.number, self.next))
            cursor.number = self.next
            return 0
        segment = self.segments[index]
        limit = self.segments[index + 1].first if index + 1 < len(self.segments) else self.next
        if cursor.number < segment.first:
            found.append(Lost(cursor.number, segment.first))
            cursor.number = segment.first
        if cursor.segment is not segment:
            cursor.segment, cursor.offset = segment, 0
        place = RecordPlace(cursor.offset, cursor.number)
        read = 0
        for one in self._passing(segment, place, limit, cursor.number):
            found.append(one)
            cursor.number = place.number
            cursor.offset = place.offset
            read += len(one.body) if isinstance(one, Record) else 0
            if len(found) >= count or read >= size:
                return read
        cursor.number, cursor.offset = max(cursor.number, limit), segment.size
        return read

    def _passing(self, segment: Segment, place: RecordPlace, limit: int, wanted: int) -> Iterator[Record | Lost]:
        """The records of a segment from number ``wanted`` on. A cursor that is new to it starts at its beginning."""
        if not place.offset:
            place.number = segment.first
        for one in self._scan(segment, place, limit):
            if isinstance(one, Record) and one.number >= wanted:
                yield one
            elif isinstance(one, Lost) and one.end > wanted:
                yield Lost(max(one.first, wanted), one.end)

    def _index(self, number: int) -> int | None:
        """The segment that holds a record, or the next one that there is."""
        if not self.segments:
            return None
        return max(0, bisect_right(self.segments, number, key=lambda segment: segment.first) - 1)

    def meta(self, number: int) -> dict[str, object]:
        """What the head of the segment that holds a record says; empty where it could not be read."""
        index = self._index(number)
        return {} if index is None else self.segments[index].meta

    def first_segment(self) -> range:
        """The numbers in the oldest segment that are not done."""
        if not self.segments:
            return range(0)
        end = self.segments[1].first if len(self.segments) > 1 else self.next
        return range(max(self.watermark, self.segments[0].first), end)

    def drop_first(self) -> range:
        """Give up the oldest segment; return the numbers that it held and that were not done.

        :raises SpoolFault: the disk fails; nothing is given up then.
        """
        dropped = self.first_segment()
        if dropped:
            self.mark(dropped.stop, tidy=True)
        return dropped

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        self._end_segment()
        if self._marks is not None:
            with contextlib.suppress(OSError):
                self._marks.close()
        self._disk.close()


def _meta(content: bytes | None) -> dict[str, object]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write_all(file: SpoolFile, data: bytes) -> None:
    """Append all of ``data``: a write may be short.

    :raises OSError: it could not.
    """
    while data:
        data = data[file.write(data) :]


def _write_all_at(file: SpoolFile, data: bytes, offset: int) -> None:
    while data:
        written = file.write_at(data, offset)
        data, offset = data[written:], offset + written


__all__ = ["Segment", "SpoolFault", "SpoolFull", "Store", "StoreCursor", "StoreLimits"]
