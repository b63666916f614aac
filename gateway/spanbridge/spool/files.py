"""Small things done to whole files of the spool."""

from __future__ import annotations

from spanbridge.spool.disk import Disk, SpoolFile


def write_new(disk: Disk, name: str, content: bytes) -> None:
    """Make a file that is on the disk, its name as well.

    :raises OSError: it could not be made.
    """
    file = disk.create(name)
    try:
        write_all(file, content)
        file.sync()
    finally:
        file.close()
    disk.sync()


def write_all(file: SpoolFile, data: bytes) -> None:
    """Append all of ``data``: a write may be short.

    :raises OSError: it could not.
    """
    while data:
        data = data[file.write(data) :]


def write_all_at(file: SpoolFile, data: bytes, offset: int) -> None:
    while data:
        written = file.write_at(data, offset)
        data, offset = data[written:], offset + written
