"""Which span runs: the one whose code is being executed, if it is recorded."""

from __future__ import annotations

from opentelemetry.trace import get_current_span

NO_SPAN = (0, 0)
UNKNOWN = (-1, -1)
"""The context could not be read."""


def running_span() -> tuple[int, int]:
    """Trace and span identifier of the current span. :data:`NO_SPAN` for one that nobody will see.

    That is a span that is not sampled, one that has ended, and a remote parent, whose code does not run here.
    It takes no lock: a signal handler calls it, and may have interrupted whoever holds one.
    """
    span = get_current_span()
    if not span.is_recording():
        return NO_SPAN
    context = span.get_span_context()
    return (context.trace_id, context.span_id) if context.trace_flags & 1 else NO_SPAN
