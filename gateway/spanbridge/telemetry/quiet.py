"""Telemetry never stops a message: what fails there is reported, and the message goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from spanbridge.ports import Reporter
from spanbridge.telemetry.events import InternalError

P = ParamSpec("P")


def quietly(reporter: Reporter, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call something of telemetry's."""
    try:
        call(*args, **kwargs)
    except Exception as fault:  # noqa: BLE001
        report_fault(reporter, fault, "telemetry")


def report_fault(reporter: Reporter, fault: Exception, where: str, count: int = 1) -> str:
    """Report a fault of ours; return it in one line."""
    cause = f"{type(fault).__name__}: {fault}"
    reporter.report(InternalError(where=where, cause=cause, count=count))
    return cause
