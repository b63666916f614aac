"""Between OpenTelemetry's contexts and the codec's."""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span

from spanbridge_context import TraceContext
from spanbridge_context.context import make
from spanbridge_context.otel import to_span_context

from .baggage import baggage_of, with_baggage
from .current import SPAN_KEY


class MessageContext(NamedTuple):
    """A message's context, and why one was dropped (a short stable word) or None."""

    context: Context | None
    problem: str | None


def outgoing(span: SpanContext, context: Context | None = None) -> TraceContext:
    """What to write into a message: the span as parent, its tracestate, and the baggage of ``context`` (the current one
    by default), capped at what the codec's carriers take.
    """
    state = span.trace_state.to_header() if span.trace_state else ""
    ids = span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big")
    return make(*ids, span.trace_flags & 0xFF, state, baggage_of(context))


def incoming(found: TraceContext, base: Context) -> Context:
    """``base`` with the message's context as the current (remote) span and the message's baggage."""
    context = Context({**base, SPAN_KEY: NonRecordingSpan(to_span_context(found))})
    return with_baggage(found.baggage, context) if found.baggage else context


def given_context(found: TraceContext | None, parent: Context) -> tuple[SpanContext, Context] | None:
    """A creation context that the caller put into the message, unless the send span refines it.

    The convention wants it left alone and linked ("Producer spans"). Of the same trace, though, it is what a message
    that is being forwarded came with: kept, the next hop would hang on the wrong span.
    """
    if found is None:
        return None
    context = incoming(found, parent)
    span = get_current_span(context).get_span_context()
    if get_current_span(parent).get_span_context().trace_id == span.trace_id:
        return None
    return span, context
