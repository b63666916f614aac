"""Background tasks that no peer can end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from spanbridge.ports import Reporter
from spanbridge.rocketmq.events import BackgroundFault


@contextmanager
def guarded(task: str, reporter: Reporter) -> Iterator[None]:
    """Report any exception, under the name of the task that goes on after it. Cancellation passes."""
    try:
        yield
    except Exception as fault:  # noqa: BLE001 - whatever it is, the next turn may find it gone
        reporter.report(BackgroundFault(task=task, cause=f"{type(fault).__name__}: {fault}"))
