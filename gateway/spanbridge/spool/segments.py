"""The spool of a gateway: a store on a thread of its own, since every write waits for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from spanbridge.core.spooled import DEAD_LETTER, DROPPABLE, Lost, Record
from spanbridge.ports import Reporter, Written
from spanbridge.spool.disk import Disk, RealDisk, make_directory
from spanbridge.spool.errors import SpoolFault, SpoolRefused, fault_of
from spanbridge.spool.events import SpoolFailed, SpoolLost, SpoolMarkFailed, SpoolOpened, SpoolWorks
from spanbridge.spool.store import Store, StoreCursor, StoreLimits
from spanbridge.spool.thread import Outcome, SpoolThread, tried

_MAY_GO = frozenset({DROPPABLE, DEAD_LETTER})
PATIENCE = 60
"""Failures to read in a row, a second apart where the spool drains, after which what cannot be read is passed over."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Shown(NamedTuple):
    """The store as of its last job."""

    first: int = 0
    end: int = 0
    size: int = 0
    segments: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions:
    """``path`` is the directory, made when it is not there. The rest is in bytes: see :class:`.store.StoreLimits`.

    ``dead_letters`` says that it is theirs, for the log.
    """

    path: Path
    max_bytes: int = 1 << 30
    reserve: int = 64 << 20
    segment_bytes: int = 16 << 20
    dead_letters: bool = False


def boot_id() -> str:
    """Names the time since this machine started; "" where the system does not tell."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class SegmentSpool:
    """Implements :class:`spanbridge.ports.Spool`. One job at a time, in order; results come back to the loop at once.

    Nothing is lost when the process ends in the middle of a job: what was not told as written is not acknowledged.
    """

    def __init__(self, options: SpoolOptions, reporter: Reporter, *, disk: Callable[[Path], Disk] = RealDisk) -> None:
        self.name = "spool.rejected" if options.dead_letters else "spool"
        self._options = options
        self._reporter = reporter
        self._make_disk = disk
        self.boot = boot_id()
        self._thread: SpoolThread | None = None
        """None before the start and after the stop; what is asked of :attr:`_running` after that is not done."""
        self._running: SpoolThread
        self._store: Store
        self._cursor: StoreCursor
        self._shown = _Shown()
        self._failing = ""
        """Why it took nothing the last time; "": it took all."""
        self._refused = 0
        """Bytes that there was no room for."""
        self._unread = 0
        """Failures to read in a row."""

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._options.path

    @property
    def first(self) -> int:
        """See the port."""
        return self._shown.first

    @property
    def end(self) -> int:
        """See the port."""
        return self._shown.end

    @property
    def size(self) -> int:
        """See the port."""
        return self._shown.size

    @property
    def limit(self) -> int:
        """See the port."""
        return self._options.max_bytes

    @property
    def room(self) -> int:
        """Bytes that may still be written: by ``max_bytes``, or by what the file system has left."""
        return self._shown.room

    async def start(self) -> None:
        """Open the directory.

        :raises SpanbridgeError: it cannot be used.
        """
        await asyncio.to_thread(self._open)
        self._thread = self._running = SpoolThread(self._show, lambda cause: self._tell_failure("internal", cause))
        messages = self.end - self.first
        if messages or not self._options.dead_letters:
            path, holds = str(self._options.path), self._holds
            self._reporter.report(SpoolOpened(path=path, messages=messages, size=self.size, holds=holds))

    @property
    def _holds(self) -> str:
        return "dead letters" if self._options.dead_letters else "messages"

    def _open(self) -> None:
        options = self._options
        try:
            make_directory(options.path)
            disk = self._make_disk(options.path)
        except OSError as error:
            raise SpoolRefused(f"{options.path}: {fault_of(error, 'opening the spool')}") from None
        limits = StoreLimits(segment=options.segment_bytes, total=options.max_bytes, reserve=options.reserve)
        try:
            self._store = Store(disk, limits)
        except (SpoolFault, SpoolRefused) as error:
            disk.close()
            raise SpoolRefused(f"{options.path}: {error}") from None
        self._store.describe({"boot": self.boot})
        self._cursor = self._store.cursor()
        self._show()

    async def stop(self) -> None:
        """Finish what was asked for, and close. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.stop()
            self._store.close()

    def status(self) -> dict[str, Any]:
        """What is on the disk."""
        shown = self._shown
        return {
            "path": str(self._options.path),
            "messages": shown.end - shown.first,
            "bytes": shown.size,
            "max_bytes": self._options.max_bytes,
            "segments": shown.segments,
            "failing": bool(self._failing),
        }

    def append(self, batch: Sequence[tuple[int, bytes]], written: Written) -> None:
        """See the port."""

        def job() -> Outcome:
            first, error = tried(lambda: self._store.commit(batch))
            return self._wrote, (written, first or 0, error, batch)

        self._running.put(job)

    def _wrote(
        self, written: Written, first: int, error: SpoolFault | None, batch: Sequence[tuple[int, bytes]]
    ) -> None:
        if error is not None:
            self._refused = sum(len(body) for _, body in batch)
            self._tell_failure(error.reason, str(error), len(batch))
        else:
            self._tell_works()
        written(first, error)

    def _tell_works(self) -> None:
        if self._failing:
            self._failing = ""
            self._reporter.report(SpoolWorks(holds=self._holds))

    def _tell_failure(self, reason: str, cause: str, count: int = 1) -> None:
        if self._options.dead_letters and reason == "full":
            return  # the oldest make room, and who decides that tells of it
        self._failing = reason
        self._reporter.report(SpoolFailed(reason=reason, cause=cause, count=count, holds=self._holds))

    async def read(self, count: int, size: int) -> list[Record | Lost]:
        """See the port."""
        past_errors = self._unread >= PATIENCE
        try:
            found = await self._running.ask(
                lambda: self._store.read(self._cursor, count, size, past_errors=past_errors)
            )
        except SpoolFault:
            self._unread += 1
            raise
        self._unread = 0
        for one in found:
            if isinstance(one, Lost):
                self._reporter.report(
                    SpoolLost(first=one.first, end=one.end, count=one.end - one.first, holds=self._holds)
                )
        return found

    def rewind(self, number: int) -> None:
        """See the port."""

        def move() -> None:
            self._cursor = self._store.cursor(number)

        self._running.order(move)

    def boot_of(self, number: int) -> str:
        """See the port. The segment's head was read with the record."""
        found = self._store.meta(number).get("boot", "")
        return found if isinstance(found, str) else ""

    def mark(self, number: int, *, tidy: bool = False) -> None:
        """See the port. What fails now is written with the next mark."""

        def job() -> Outcome:
            _, error = tried(lambda: self._store.mark(number, tidy=tidy))
            return self._marked, (error,)

        self._running.put(job)

    def _marked(self, error: SpoolFault | None) -> None:
        if error is not None:
            self._reporter.report(SpoolMarkFailed(cause=str(error), holds=self._holds))
        elif self._failing == "full" and self._shown.room > 2 * self._refused:
            self._tell_works()  # nobody may have anything for it any more, or for long

    async def drop_oldest(self, look: Callable[[Record], None]) -> range:
        """See the port."""
        return await self._running.ask(lambda: self._drop(look))

    def _drop(self, look: Callable[[Record], None]) -> range:
        try:
            first = self._store.first_segment()
            cursor = self._store.cursor()
            while cursor.number < first.stop:
                for one in self._store.read(cursor, 1024, 1 << 20):
                    if isinstance(one, Record) and one.number < first.stop:
                        if one.kind not in _MAY_GO:
                            return range(0)
                        look(one)
            return self._store.drop_first()
        except SpoolFault:
            return range(0)

    def _show(self) -> None:
        store = self._store
        try:
            room = max(0, store.room())
        except SpoolFault:
            room = 0
        self._shown = _Shown(store.watermark, store.next, store.size, len(store.segments), room)
