"""A file of which parts cannot be read."""

from __future__ import annotations

import contextlib

from spanbridge.spool.disk import SpoolFile

_PAGE = 4096
"""Bytes: what a kernel reads at least, so no less can be spoiled."""


class Holes:
    """Reads a file as if it held zeros where the disk reads nothing: no record passes for one then.

    None stands for a file that is gone. It is for reading only.
    """

    def __init__(self, file: SpoolFile | None) -> None:
        self._file = file

    def read(self, size: int, offset: int) -> bytes:
        """See :class:`.disk.SpoolFile`."""
        if self._file is None:
            return bytes(size)
        with contextlib.suppress(OSError):
            return self._file.read(size, offset)
        parts = []
        end = offset + size
        while offset < end:
            step = min(_PAGE - offset % _PAGE, end - offset)
            parts.append(self._page(step, offset))
            offset += step
        return b"".join(parts)

    def _page(self, size: int, offset: int) -> bytes:
        assert self._file is not None
        with contextlib.suppress(OSError):
            return self._file.read(size, offset)
        return bytes(size)

    def write(self, data: bytes) -> int:
        """Never called."""
        raise NotImplementedError

    def write_at(self, data: bytes, offset: int) -> int:
        """Never called."""
        raise NotImplementedError

    def sync(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """See :class:`.disk.SpoolFile`."""
        if self._file is not None:
            self._file.close()
