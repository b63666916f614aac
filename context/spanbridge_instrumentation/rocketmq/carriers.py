"""Contexts in RocketMQ messages: written into the user properties, read from them or from the system property."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from threading import Lock
from typing import Any, Final

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Span, SpanContext, get_current_span, set_span_in_context

from spanbridge_context.otel import to_span_context
from spanbridge_context.rocketmq import extract_rocketmq
from spanbridge_instrumentation._shared.baggage import extract_global, inject_global
from spanbridge_instrumentation._shared.context import MessageContext, given_context, on_top, outgoing
from spanbridge_instrumentation._shared.registry import MessageRegistry

Properties = MutableMapping[str, str]

MAX_PROPERTIES: Final = 128
MAX_PROPERTY_BYTES: Final = 16 * 1024
"""RocketMQ's proxy refuses messages over these (``userPropertyMaxNum``, ``maxUserPropertySize`` of ``ProxyConfig``)."""

TRACE_CONTEXTS: Final[MessageRegistry[str]] = MessageRegistry()
"""The system property ``trace_context`` of received messages, which the client has no property for."""

_W3C: Final = frozenset({"traceparent", "tracestate", "baggage"})


class WrittenValue(str):
    """A property value that was written here, not by the user: also in copies of the properties."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class Written:
    """The properties that were put into a message, to be taken out again when no send of it is under way any more.

    An application may send its message object again, so what it gave us is what it gets back; and it may do so while
    the client still reads the properties for an earlier ``send_async``, so then the dictionary keeps its size.
    """

    __slots__ = ("_former", "_properties", "_sends")

    def __init__(self, properties: Properties, values: Mapping[str, str]) -> None:
        self._properties = properties
        self._sends = 0
        self._former: dict[str, str] = {}
        if properties:
            # A context that is there is replaced as a whole: its tracestate and baggage would not fit ours, and what is
            # in W3C's form would be read before any other propagator's.
            for key in {*values, *_fields(propagate.get_global_textmap()), "traceparent", "tracestate"}:
                former = properties.pop(key, None)
                if former is not None and type(former) is not WrittenValue:
                    self._former[key] = former
        for key, value in values.items():
            properties[key] = WrittenValue(value)

    @classmethod
    def put(cls, properties: Properties, values: Mapping[str, str]) -> Written:
        """Put the values in, for one more send."""
        with _lock:
            found = _under_way.get(id(properties))
            if found is None:
                found = _under_way[id(properties)] = cls(properties, values)
            else:
                for key, value in values.items():
                    if key in properties:
                        properties[key] = WrittenValue(value)
            found._sends += 1
            return found

    def take_back(self) -> None:
        """One send ended. After the last: put back what was there, unless somebody has written something else since."""
        with _lock:
            self._sends -= 1
            if self._sends:
                return
            properties = self._properties
            del _under_way[id(properties)]
            ours = [key for key, value in properties.items() if type(value) is WrittenValue]
            for key in ours:
                del properties[key]
            for key, former in self._former.items():
                properties.setdefault(key, former)


_lock = Lock()
_under_way: dict[int, Written] = {}


def write(message: Any, span: Span, parent: Context) -> Written | None:
    """Put the span's context into the message, as far as the broker would still take it; None when it does not fit.

    What there is no room for is left out: baggage first, then tracestate.
    """
    properties = message.properties
    values = _values(span, parent)
    if not properties and len(values) == 1:  # as most messages have it
        return Written.put(properties, values)
    for dropped in ("baggage", "tracestate", None):
        if not values:
            break
        if _fits(properties, values):
            return Written.put(properties, values)
        values.pop(dropped or "", None)
    return None


def given_by_user(message: Any, parent: Context) -> tuple[SpanContext, Context] | None:
    """What :func:`given_context` says of the message, but for what was written here."""
    properties = message.properties
    given = properties.get("traceparent")
    if given is None or type(given) is WrittenValue:
        return None
    return given_context(extract_rocketmq(properties).context, parent)


class Brought:
    """What a message came with, as the codec reads it: read once, put on top of a context as often as it takes."""

    __slots__ = ("baggage", "problem", "span")

    def __init__(self, message: Any) -> None:
        trace_context = TRACE_CONTEXTS.get(message) if len(TRACE_CONTEXTS) else None
        found, self.problem = extract_rocketmq(message.properties, trace_context)
        self.span = None if found is None else to_span_context(found)
        self.baggage = "" if found is None else found.baggage


def read(message: Any, base: Context, brought: Brought | None = None) -> MessageContext:
    """The context that a message came with, on top of ``base``."""
    if brought is None:
        brought = Brought(message)
    if brought.span is not None:
        return MessageContext(on_top(brought.span, brought.baggage, base), brought.span, brought.problem)
    propagator = propagate.get_global_textmap()
    if not _fields(propagator) <= _W3C:
        context = extract_global(message.properties, base)
        if get_current_span(context) is not get_current_span(base):
            return MessageContext(context)
    return MessageContext(problem=brought.problem)


def _values(span: Span, parent: Context) -> dict[str, str]:
    propagator = propagate.get_global_textmap()
    fields = _fields(propagator)
    if "traceparent" in fields and fields <= _W3C:
        # The codec does the same in less time, and knows Level 2's tracestate and the limits of baggage.
        context = outgoing(span.get_span_context(), parent)
        values = {"traceparent": context.traceparent}
        if context.tracestate:
            values["tracestate"] = context.tracestate
        if context.baggage and "baggage" in fields:
            values["baggage"] = context.baggage
        return values
    values = inject_global(set_span_in_context(span, parent))
    return {key: value for key, value in values.items() if value and value.strip()}  # the broker refuses empty ones


def _fits(properties: Properties, values: Mapping[str, str]) -> bool:
    characters = 0
    for pairs in (properties, values):
        for key, value in pairs.items():
            characters += len(key) + len(value)
    if len(properties) + len(values) <= MAX_PROPERTIES and characters * 4 <= MAX_PROPERTY_BYTES:
        return True  # UTF-8 takes four bytes a character at most
    after = {**properties, **values}
    size = sum(len(key.encode()) + len(value.encode()) for key, value in after.items())
    return len(after) <= MAX_PROPERTIES and size <= MAX_PROPERTY_BYTES


_known_fields: tuple[TextMapPropagator, frozenset[str]] | None = None


def _fields(propagator: TextMapPropagator) -> frozenset[str]:
    """The propagator's fields; of the last one they are remembered, since composites collect them anew each time."""
    global _known_fields  # noqa: PLW0603
    known = _known_fields
    if known is None or known[0] is not propagator:
        known = _known_fields = (propagator, frozenset(propagator.fields))
    return known[1]
