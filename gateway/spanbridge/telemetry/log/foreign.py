"""What libraries log, kept from flooding: a peer that answers nonsense makes gRPC log a traceback for each answer."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable

_INTERVAL = 60.0
_KINDS = 200


class Foreign:
    """Lets each line of another library through once a minute, with the number of those that were left out.

    Lines are told apart by logger and wording, not by what was put into it. Exceptions that gRPC logs are what a peer
    caused: they come as one line, without the traceback. Ours pass as they are: the reporter has limits of its own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def shown(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """The record to write, or one in its place; None to leave it out."""
        if record.name.partition(".")[0] == "spanbridge":
            return record
        key = (record.name, str(record.msg))
        now = self._clock()
        before = self._seen.get(key)
        if before is not None and now - before[0] < _INTERVAL:
            self._seen[key] = (before[0], before[1] + 1)
            return None
        if len(self._seen) >= _KINDS:
            self._seen.clear()
        self._seen[key] = (now, 0)
        return _shortened(record, before[1] if before is not None else 0)


def _shortened(record: logging.LogRecord, left_out: int) -> logging.LogRecord:
    """A copy: other handlers see the record as it was."""
    text = record.getMessage()
    shown = copy.copy(record)
    if record.name.partition(".")[0] == "grpc":
        error = record.exc_info[1] if record.exc_info else None
        text = " ".join(text.split())[:300] + (f": {type(error).__name__}: {error}" if error is not None else "")
        shown.exc_info = shown.exc_text = None
    if left_out:
        text = f"{text} ({left_out} more like this)"
    shown.msg, shown.args = text, None
    return shown
