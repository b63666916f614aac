"""The file layer: what the store asks of a directory. Tests put a simulated disk in its place.

Everything may raise ``OSError``; the store maps that. A ``write`` may be short, as write(2) may.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol

_MODE = 0o600
"""Messages are nobody else's business."""


class SpoolFile(Protocol):
    """An open file."""

    def write(self, data: bytes) -> int:
        """Append; return how many bytes were taken."""

    def write_at(self, data: bytes, offset: int) -> int:
        """Write at an offset; return how many bytes were taken."""

    def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer at the end only."""

    def sync(self) -> None:
        """Return once the content is on the disk (fdatasync)."""

    def close(self) -> None:
        """Close it. Idempotent."""


class Disk(Protocol):
    """One directory."""

    def names(self) -> dict[str, int]:
        """Its files with their sizes in bytes."""

    def create(self, name: str) -> SpoolFile:
        """A new file to append to. It is there for good only after :meth:`sync`."""

    def open(self, name: str, *, write: bool = False) -> SpoolFile:
        """A file that is there."""

    def unlink(self, name: str) -> None:
        """Remove a file. It is gone for good only after :meth:`sync`."""

    def sync(self) -> None:
        """Return once names that were created or removed are so on the disk (fsync of the directory)."""

    def free(self) -> int:
        """Bytes that the file system has left for us."""

    def lock(self) -> bool:
        """Take the directory for this process; False when another has it."""

    def close(self) -> None:
        """Let go of it. Idempotent."""


class RealFile:
    """A file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor

    def write(self, data: bytes) -> int:
        """See :class:`SpoolFile`; the descriptor appends."""
        return os.write(self._fd, data)

    def write_at(self, data: bytes, offset: int) -> int:
        """See :class:`SpoolFile`."""
        return os.pwrite(self._fd, data, offset)

    def read(self, size: int, offset: int) -> bytes:
        """See :class:`SpoolFile`."""
        return os.pread(self._fd, size, offset)

    def sync(self) -> None:
        """See :class:`SpoolFile`. A file whose name somebody removed is on no disk, whatever fsync says."""
        getattr(os, "fdatasync", os.fsync)(self._fd)  # macOS has fsync only
        if not os.fstat(self._fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def close(self) -> None:
        """See :class:`SpoolFile`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealDisk:
    """A directory of this machine.

    :raises OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = -1

    def names(self) -> dict[str, int]:
        """See :class:`Disk`."""
        with os.scandir(self._fd) as entries:
            return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file()}

    def create(self, name: str) -> RealFile:
        """See :class:`Disk`. What is there already is somebody else's: it fails."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return RealFile(os.open(name, flags, _MODE, dir_fd=self._fd))

    def open(self, name: str, *, write: bool = False) -> RealFile:
        """See :class:`Disk`."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
        return RealFile(os.open(name, flags, dir_fd=self._fd))

    def unlink(self, name: str) -> None:
        """See :class:`Disk`."""
        os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        """See :class:`Disk`. Some network file systems cannot, and say EINVAL: they keep names by themselves."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def free(self) -> int:
        """See :class:`Disk`."""
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize

    def lock(self) -> bool:
        """See :class:`Disk`. The kernel lets go of it when the process ends, however it ends (flock)."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open("lock", flags, _MODE, dir_fd=self._fd)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def close(self) -> None:
        """See :class:`Disk`."""
        for descriptor in (self._lock, self._fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._fd = -1


def make_directory(path: Path) -> None:
    """Have a directory for nobody else. What of its path has to be made is on the disk when this returns.

    :raises OSError: it could not be made.
    """
    missing = []
    above = path
    while not above.exists():
        missing.append(above)
        above = above.parent
    for one in reversed(missing[1:]):
        one.mkdir(exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    for one in missing:
        with contextlib.suppress(PermissionError):  # it may be made there, and not read
            sync_directory(one.parent)


def sync_directory(path: Path) -> None:
    """Return once its names are on the disk.

    :raises OSError: they are not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # as in RealDisk.sync
            raise
    finally:
        os.close(descriptor)
