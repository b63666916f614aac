"""Errors of the devstack: what went wrong and what to do about it."""

from __future__ import annotations


class DevstackError(Exception):
    """The devstack could not do what was asked.

    ``hint`` says what to try next, ``log`` holds the tail of the service's log where there is one.
    """

    def __init__(self, message: str, *, hint: str = "", log: str = "") -> None:
        parts = [message]
        if hint:
            parts.append(f"hint: {hint}")
        if log:
            parts.append(f"last lines of its log:\n{log}")
        super().__init__("\n".join(parts))
        self.message = message
        self.hint = hint
        self.log = log


def os_problem(error: OSError) -> str:
    """What the system refused, on one line without its number: the file or directory, and why."""
    why = error.strerror or str(error)
    return f"{error.filename}: {why}" if error.filename else why


class DownloadError(DevstackError):
    """A file could not be fetched, stored or verified."""


class ServiceError(DevstackError):
    """A broker did not start, did not become ready, or ended by itself."""
