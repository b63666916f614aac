"""Whose directory it is, and of which version."""

from __future__ import annotations

from spanbridge.spool.disk import Disk
from spanbridge.spool.errors import SpoolRefused
from spanbridge.spool.files import write_all_at, write_new
from spanbridge.spool.records import parse_name
from spanbridge.spool.watermark import WATERMARK

VERSION = 1
VERSION_FILE = "version"
DEAD_LETTERS = "rejected"
"""The directory of dead letters, within the spool's: a spool of its own."""
_OURS = frozenset({VERSION_FILE, WATERMARK, "lock"})


def check_owner(names: dict[str, int]) -> None:
    """The directory holds files of a spool only. Directories in it do not matter.

    :raises SpoolRefused: it holds others.
    """
    strangers = sorted(name for name in names if name not in _OURS and parse_name(name) is None)
    if strangers:
        raise SpoolRefused(f"the spool's directory holds other files ({strangers[0]!r}): give it one of its own")


def check_version(disk: Disk, names: dict[str, int], *, read_only: bool) -> None:
    """It is a directory of this version. A new one is made so.

    :raises SpoolRefused: it is of another.
    :raises OSError: the disk fails.
    """
    text = b"spanbridge spool %d\n" % VERSION
    if VERSION_FILE in names:
        file = disk.open(VERSION_FILE)
        try:
            found = file.read(256, 0)
        finally:
            file.close()
        if found == text:
            if not read_only:
                _confirm(disk, text)
            return
        if found and not text.startswith(found):
            words = found.decode("ascii", "replace").split()
            version = words[2] if len(words) == 3 and words[:2] == ["spanbridge", "spool"] else "unknown"
            raise SpoolRefused(
                f"the spool is of version {version}, and this gateway reads version {VERSION}: empty it with the "
                "gateway that wrote it, or name another directory"
            )
        if not read_only:
            disk.unlink(VERSION_FILE)  # the start ended while it was written: there is nothing else yet
    if any(parse_name(name) for name in names):
        raise SpoolRefused("the spool has no readable `version` file: write `spanbridge spool 1` into it")
    if not read_only:
        write_new(disk, VERSION_FILE, text)


def _confirm(disk: Disk, text: bytes) -> None:
    """Have what was read on the disk: a start that ended while it was made may have left it in memory only."""
    file = disk.open(VERSION_FILE, write=True)
    try:
        write_all_at(file, text, 0)
        file.sync()
    finally:
        file.close()
