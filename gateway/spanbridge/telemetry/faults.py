"""Faults of telemetry itself: told once a minute each, raised never. Telemetry cannot stop a message."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

_INTERVAL = 60.0
_KEPT = 100
_told: dict[str, float] = {}


def tell(what: str, error: BaseException) -> None:
    """Log that ``what`` went wrong, at most once a minute for each ``what``. Never raises."""
    try:
        now = time.monotonic()
        if now - _told.get(what, float("-inf")) < _INTERVAL:
            return
        if len(_told) >= _KEPT:
            _told.clear()
        _told[what] = now
        cause = f"{type(error).__name__}: {error}"
        logging.getLogger(__name__).error("internal error: %s: %s; messages are not affected", what, cause)
    except Exception:  # noqa: BLE001 - there is nobody left to tell
        return


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Tell an exception of the block and go on after it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        tell(what, error)
