"""OpenTelemetry's contexts, made and asked with as few steps as there can be: each message needs some of each."""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import INVALID_SPAN, Span, TraceFlags, set_span_in_context

SPAN_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, Context())))
"""Under which a context holds its span: for a context with more than a span in it, made in one step."""

NOTHING: Final = Context()
"""A context with nothing in it."""


def enabled(context: Context) -> bool:
    """Whether instrumentation is not suppressed in the current context, which is given: what OpenTelemetry's function
    says, without its two look-ups where there is nothing to find.
    """
    return not context or is_instrumentation_enabled()


def is_sampled(context: Context) -> bool:
    """Whether the context's span, perhaps another process's, is sampled."""
    span = context.get(SPAN_KEY)
    return isinstance(span, Span) and span.get_span_context().trace_flags & TraceFlags.SAMPLED != 0
