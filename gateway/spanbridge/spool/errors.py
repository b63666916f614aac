"""Errors of the spool. Errors of the operating system do not leave the package."""

from __future__ import annotations

import errno

from spanbridge.core.errors import ConfigError, SpanbridgeError


class SpoolRefused(ConfigError):  # noqa: N818 - an outcome, as the others of core.errors
    """The directory cannot be used as it is: somebody has to mend it, or to name another."""

    reason = "spool"


class SpoolFault(SpanbridgeError):  # noqa: N818
    """The disk failed. What was to be written is not acknowledged; the next attempt begins a new segment."""

    reason = "disk"


class SpoolFull(SpoolFault):
    """There is no room: the size that is configured, the reserve of the file system, or the disk itself."""

    reason = "full"


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def fault_of(error: OSError, doing: str) -> SpoolFault:
    """What an error of the operating system means to the spool. ``doing`` begins the sentence."""
    kind = SpoolFull if error.errno in _FULL else SpoolFault
    return kind(f"{doing} failed: {(error.strerror or type(error).__name__).lower()}")
