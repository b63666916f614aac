"""Between OpenTelemetry's contexts and the codec's."""

from __future__ import annotations

from opentelemetry.baggage import get_all
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from spanbridge_context import TraceContext
from spanbridge_context.baggage import cap_baggage
from spanbridge_context.context import make
from spanbridge_context.tracestate import parse_tracestate

_BAGGAGE = W3CBaggagePropagator()
_NO_STATE = TraceState()


def outgoing(span: SpanContext, context: Context | None = None) -> TraceContext:
    """What to write into a message: the span as parent, its tracestate, and the baggage of ``context`` (the current one
    by default), capped at what the codec's carriers take.
    """
    state = span.trace_state.to_header() if span.trace_state else ""
    ids = span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big")
    return make(*ids, span.trace_flags & 0xFF, state, _baggage(context))


def incoming(found: TraceContext, base: Context) -> Context:
    """``base`` with the message's context as the current (remote) span and the message's baggage."""
    context = set_span_in_context(NonRecordingSpan(span_context(found)), base)
    if found.baggage:
        context = _BAGGAGE.extract({"baggage": [found.baggage]}, context)
    return context


def span_context(found: TraceContext) -> SpanContext:
    """The OpenTelemetry form of a context that came in."""
    return SpanContext(
        int.from_bytes(found.trace_id_bytes, "big"),
        int.from_bytes(found.span_id_bytes, "big"),
        is_remote=True,
        trace_flags=TraceFlags(found.flags),
        trace_state=_state(found.tracestate) if found.tracestate else _NO_STATE,
    )


def _baggage(context: Context | None) -> str:
    if not get_all(context):
        return ""
    carrier: dict[str, str] = {}
    _BAGGAGE.inject(carrier, context)
    return cap_baggage(carrier.get("baggage", ""))[0]


def _state(text: str) -> TraceState:
    """OpenTelemetry's class refuses keys that Trace Context Level 2 allows (section 3.3.1.3.1), and warns of each."""
    state = TraceState()
    entries = getattr(state, "_dict", None)
    if not isinstance(entries, dict):
        return TraceState.from_header([text])
    for key, value in parse_tracestate(text):
        entries.setdefault(key, value)
    return state
