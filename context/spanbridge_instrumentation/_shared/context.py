"""Between OpenTelemetry's contexts and the codec's."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from spanbridge_context import TraceContext
from spanbridge_context.context import make
from spanbridge_context.otel import to_span_context

from .baggage import baggage_of, with_baggage


def outgoing(span: SpanContext, context: Context | None = None) -> TraceContext:
    """What to write into a message: the span as parent, its tracestate, and the baggage of ``context`` (the current one
    by default), capped at what the codec's carriers take.
    """
    state = span.trace_state.to_header() if span.trace_state else ""
    ids = span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big")
    return make(*ids, span.trace_flags & 0xFF, state, baggage_of(context))


def incoming(found: TraceContext, base: Context) -> Context:
    """``base`` with the message's context as the current (remote) span and the message's baggage."""
    context = set_span_in_context(NonRecordingSpan(to_span_context(found)), base)
    return with_baggage(found.baggage, context) if found.baggage else context
