"""Profiling under ``opentelemetry-instrument``, without a line of code: SPANBRIDGE_PROFILING turns it on.

OpenTelemetry's agent calls :func:`start` by its entry point (``opentelemetry_post_instrument``) before the application
begins, on the main thread. Nothing else of this package is loaded until the variable asks for it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spanbridge_profiling.background import Background

LOG = logging.getLogger("spanbridge_profiling")
_running: list[Background] = []


def start() -> None:
    """Begin to profile the process where the environment says so. Never raises; what is wrong is logged once."""
    if not os.environ.get("SPANBRIDGE_PROFILING") or _running:
        return
    from spanbridge_profiling.background import begin  # noqa: PLC0415 - not loaded where it is off

    try:
        found = begin(os.environ)
    except Exception:
        LOG.exception("profiling could not begin")  # a fault of ours; the application runs all the same
        return
    if found is not None:
        _running.append(found)


def stop() -> None:
    """Export what is left, and end."""
    while _running:
        _running.pop().stop()
