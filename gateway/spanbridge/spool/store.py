"""The store: numbered records in segments, oldest first, with a watermark below which all are done.

Synchronous, for one thread. Nothing is kept in memory but the list of segments. It is opened by its watermark: of the
segments only the last one is read.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanbridge.core.spooled import Lost, Record
from spanbridge.spool import records as form
from spanbridge.spool.disk import Disk, SpoolFile
from spanbridge.spool.errors import SpoolFault, SpoolFull, SpoolRefused, fault_of
from spanbridge.spool.files import write_all
from spanbridge.spool.reading import Segment, SegmentReader, StoreCursor
from spanbridge.spool.records import Name, RecordPlace
from spanbridge.spool.versions import check_owner, check_version
from spanbridge.spool.watermark import Watermark


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """``segment`` is the size at which a segment is full, ``total`` what all may take, ``reserve`` what the file
    system keeps free. In bytes."""

    segment: int = 16 << 20
    total: int = 1 << 30
    reserve: int = 64 << 20


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
        self.next = 0
        self._reader = SegmentReader(disk, self.segments)
        self._read_only = read_only
        self._file: SpoolFile | None = None
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
        check_owner(names)
        if not self._read_only and not self._disk.lock():
            raise SpoolRefused("another gateway uses this spool: give each gateway a directory of its own")
        check_version(self._disk, names, read_only=self._read_only)
        self._mark = Watermark(self._disk, names, read_only=self._read_only)
        found = sorted((name, size) for text, size in names.items() if (name := form.parse_name(text)) is not None)
        self.segments += [Segment(name, size) for name, size in found]
        self._last = found[-1][0] if found else Name(0, 0, 0)
        self._find_end()
        self._retire()

    def _find_end(self) -> None:
        """Find the number of the next record, by the last segment that holds one; forget those that hold none."""
        self.next = self.watermark
        while self.segments:
            last = self.segments[-1]
            number = None
            for run in self._reader.scan(last, RecordPlace(0, last.first), None):
                if isinstance(run[-1], Record):
                    number = run[-1].number
            if number is not None:
                self.next = max(self.next, number + 1)
                return
            if self._read_only:
                return
            self._doomed.append(self.segments.pop())
            # The watermark does not go back, and neither does what was given out before.
            self.next = max(self.next, last.first)

    @property
    def watermark(self) -> int:
        """The number of the first record that is not done."""
        return self._mark.number

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
            write_all(file, data)
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
        write_all(self._file, start)
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
        try:
            self._mark.write(number)
        except OSError as error:
            raise fault_of(error, "writing the spool's watermark") from None
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

    def read(self, cursor: StoreCursor, count: int, size: int, *, past_errors: bool = False) -> list[Record | Lost]:
        """The next records, up to about ``count`` and ``size`` bytes; empty at the end.

        What is spoiled is passed over and told as :class:`Lost`. With ``past_errors`` so is what the disk does not
        read, if it writes: a disk that is away as a whole may come back.

        :raises SpoolFault: the disk fails; the cursor stays where it was.
        """
        if cursor.number < self.watermark:
            cursor.number, cursor.segment = self.watermark, None
        try:
            if past_errors:
                self._mark.write(self.watermark)
            return self._reader.read(cursor, self.next, count, size, past_errors=past_errors)
        except OSError as error:
            raise fault_of(error, "reading the spool") from None

    def meta(self, number: int) -> dict[str, object]:
        """What the head of the segment that holds a record says; empty where it could not be read."""
        index = self._reader.index(number)
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
        self._mark.close()
        self._disk.close()


__all__ = ["Segment", "SpoolFault", "SpoolFull", "Store", "StoreCursor", "StoreLimits"]
