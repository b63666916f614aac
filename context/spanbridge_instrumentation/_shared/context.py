"""Between OpenTelemetry's contexts and the codec's."""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span

from spanbridge_context import TraceContext
from spanbridge_context.context import make
from spanbridge_context.otel import to_span_context

from .baggage import baggage_of, with_baggage
from .current import SPAN_KEY


class MessageContext:
    """A message's context, its span's, and why one was dropped (a short stable word); None each where there is none."""

    __slots__ = ("context", "problem", "span")

    def __init__(
        self, context: Context | None = None, span: SpanContext | None = None, problem: str | None = None
    ) -> None:
        self.context = context
        self.span = span
        self.problem = problem


NO_CONTEXT: Final = MessageContext()
"""What most messages that are not traced have."""


def outgoing(span: SpanContext, context: Context | None = None) -> TraceContext:
    """What to write into a message: the span as parent, its tracestate, and the baggage of ``context`` (the current one
    by default), capped at what the codec's carriers take.
    """
    trace_id, span_id, _, flags, state, _ = span
    header = state.to_header() if state else ""
    baggage = "" if context is not None and not context else baggage_of(context)
    return make(trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"), flags & 0xFF, header, baggage)


def incoming(found: TraceContext, base: Context) -> Context:
    """``base`` with the message's context as the current (remote) span and the message's baggage."""
    return on_top(to_span_context(found), found.baggage, base)


def on_top(span: SpanContext, baggage: str, base: Context) -> Context:
    """The same of the two parts that are used."""
    context = Context({**base, SPAN_KEY: NonRecordingSpan(span)})
    return with_baggage(baggage, context) if baggage else context


def arrived(found: TraceContext, base: Context, problem: str | None = None) -> MessageContext:
    """What a message brought, on top of ``base``."""
    span = to_span_context(found)
    return MessageContext(on_top(span, found.baggage, base), span, problem)


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
