"""The watermark on the disk: two slots, written in turn, so that one torn write spoils one of them."""

from __future__ import annotations

import contextlib

from spanbridge.spool import records as form
from spanbridge.spool.disk import Disk, SpoolFile
from spanbridge.spool.files import write_all_at, write_new
from spanbridge.spool.records import Mark

WATERMARK = "watermark"


class Watermark:
    """``number`` is that of the first record that is not done, as it is on the disk.

    :raises OSError: the disk fails.
    """

    def __init__(self, disk: Disk, names: dict[str, int], *, read_only: bool) -> None:
        self.number = 0
        self._generation = 0
        self._file: SpoolFile | None = None
        if read_only:
            if WATERMARK in names:
                file = disk.open(WATERMARK)
                self._read(file)
                file.close()
            return
        whole = form.SLOT_AT[1] * 2  # both slots have room from the start: on a full disk, it is this that makes room
        if WATERMARK not in names:
            write_new(disk, WATERMARK, bytes(whole))
        self._file = disk.open(WATERMARK, write=True)
        self._read(self._file)
        size = names.get(WATERMARK, whole)
        if size < whole:  # a start ended while it was made
            write_all_at(self._file, bytes(whole - size), size)
            self._file.sync()
        self._confirm()

    def _confirm(self) -> None:
        """Have what was read on the disk, before anything is removed for its sake.

        Where the write of it failed, the file system may still show it, and it is gone after a loss of power
        (PostgreSQL's "fsyncgate"). It goes to the slot that it came from: the other one stays whole.
        """
        if self._generation:
            self._put(Mark(self._generation, self.number))

    def _read(self, file: SpoolFile) -> None:
        found = form.decode_marks(file.read(form.SLOT_AT[1] + form.SLOT_BYTES, 0))
        if found:
            self._generation, self.number = found[-1]

    def write(self, number: int) -> None:
        """Have another number on the disk.

        :raises OSError: the disk fails; the former one is there.
        """
        mark = Mark(self._generation + 1, number)
        self._put(mark)
        self._generation, self.number = mark

    def _put(self, mark: Mark) -> None:
        assert self._file is not None
        write_all_at(self._file, form.encode_mark(mark), form.SLOT_AT[mark.generation % 2])
        self._file.sync()

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
