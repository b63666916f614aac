"""OpenTelemetry's contexts, made and asked with as few steps as there can be: each message needs some of each."""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import INVALID_SPAN, Span, TraceFlags, set_span_in_context

SPAN_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, Context())))
"""Under which a context holds its span: for a context with more than a span in it, made in one step."""

_NOTHING: Final = Context()


def enabled() -> bool:
    """Whether instrumentation is not suppressed here: what OpenTelemetry's function says, without its two look-ups
    where there is nothing to find.
    """
    return not get_current() or is_instrumentation_enabled()


def is_sampled(context: Context) -> bool:
    """Whether the context's span, perhaps another process's, is sampled."""
    span = context.get(SPAN_KEY)
    return isinstance(span, Span) and span.get_span_context().trace_flags & TraceFlags.SAMPLED != 0


def alone(span: Span) -> Context:
    """A context of this span and nothing else, for exemplars; an empty one when it is not recorded, as they want it."""
    return Context({SPAN_KEY: span}) if span.is_recording() else _NOTHING
