"""OpenTelemetry's interfaces over the codec. Needs ``opentelemetry-api``; nothing else in the codec imports it.

``OTEL_PROPAGATORS=spanbridge,baggage`` makes it the process's propagator. Unlike OpenTelemetry's own it refuses several
parents and a trailing newline, keeps every tracestate that Trace Context Level 2 allows, and reads the compact form.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState

from . import compact, traceparent
from .context import TraceContext, make
from .errors import ZERO_ID, TraceContextError
from .mqtt import COMPACT, W3C, complete, is_ordinary
from .tracestate import format_tracestate, normalise_tracestate, parse_tracestate

__all__ = [
    "Level2TraceState",
    "PropertyMapGetter",
    "PropertyMapSetter",
    "SpanbridgePropagator",
    "UserPropertyGetter",
    "UserPropertySetter",
    "from_span_context",
    "property_map_getter",
    "property_map_setter",
    "to_span_context",
    "user_property_getter",
    "user_property_setter",
]

_FLAGS = tuple(TraceFlags(flags) for flags in range(256))


class Level2TraceState(TraceState):
    """A TraceState with the keys that Level 2 allows, and the header as it came as long as nothing is changed.

    :raises TraceContextError: the header is not a tracestate.
    """

    def __init__(self, header: str = "") -> None:
        # Not the base's: members are taken apart only when someone asks for one, most messages only pass through.
        self._header = normalise_tracestate(header)
        self._members: dict[str, str] | None = None

    @classmethod
    def of(cls, checked: str) -> Level2TraceState:
        """The state of a header that was checked already, as a context's is."""
        state = cls.__new__(cls)
        state._header, state._members = checked, None
        return state

    @classmethod
    def from_header(cls, header_list: list[str]) -> Level2TraceState:
        """The state of one or more headers; an empty one when together they are not a tracestate."""
        try:
            return cls(",".join(header_list))
        except TraceContextError:
            return cls()

    @property
    def _dict(self) -> dict[str, str]:  # type: ignore[override]
        if self._members is None:
            # Of equal keys the left one is the newest.
            self._members = {}
            for key, value in parse_tracestate(self._header):
                self._members.setdefault(key, value)
        return self._members

    def __bool__(self) -> bool:
        # Asked for each message that is sent on; by its length, a Mapping would take the members apart to answer.
        return self._header != ""

    def to_header(self) -> str:
        """The header's value."""
        return self._header

    def add(self, key: str, value: str) -> TraceState:
        """With a new member at the left; as it is when the key is there, or the member is not legal."""
        return self if key in self._dict else self._changed([(key, value)], key)

    def update(self, key: str, value: str) -> TraceState:
        """With the member at the left and its value changed; as it is when the member is not legal."""
        return self._changed([(key, value)], key)

    def delete(self, key: str) -> TraceState:
        """Without a member."""
        return self._changed([], key) if key in self._dict else self

    def _changed(self, first: list[tuple[str, str]], without: str) -> TraceState:
        members = first + [member for member in self._dict.items() if member[0] != without]
        try:
            return Level2TraceState(format_tracestate(members))
        except TraceContextError:
            return self


def to_span_context(context: TraceContext, is_remote: bool = True) -> SpanContext:
    """OpenTelemetry's form of a context. Baggage is not part of it."""
    return SpanContext(
        int.from_bytes(context.trace_id_bytes, "big"),
        int.from_bytes(context.span_id_bytes, "big"),
        is_remote,
        _FLAGS[context.flags],
        Level2TraceState.of(context.tracestate) if context.tracestate else None,
    )


def from_span_context(span_context: SpanContext, baggage: str = "") -> TraceContext:
    """The codec's form of a span's context. A tracestate that is not valid is left out.

    :raises TraceContextError: the span context is not valid, or the baggage is not.
    """
    if not span_context.is_valid:
        raise TraceContextError("span context: not valid", ZERO_ID)
    context = make(
        span_context.trace_id.to_bytes(16, "big"),
        span_context.span_id.to_bytes(8, "big"),
        span_context.trace_flags & 0xFF,
        _header(span_context.trace_state),
    )
    return context.replace(baggage=baggage) if baggage else context


def _header(state: TraceState) -> str:
    if isinstance(state, Level2TraceState):
        return state.to_header()
    try:
        return normalise_tracestate(state.to_header())
    except TraceContextError:
        return ""


class SpanbridgePropagator(TextMapPropagator):
    """Trace context through any carrier with a getter and a setter. Baggage has a propagator of its own.

    :param form: what is written: ``"w3c"`` (``traceparent``) or ``"compact"`` (``tp``). Both are read.
    :raises TraceContextError: another form.
    """

    def __init__(self, form: str = W3C) -> None:
        if form not in (W3C, COMPACT):
            raise TraceContextError("form: neither 'compact' nor 'w3c'")
        self._compact = form == COMPACT

    @property
    def fields(self) -> set[str]:
        """The names that :meth:`inject` may set."""
        return {"tp" if self._compact else "traceparent", "tracestate"}

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """The context with the carrier's span in it; as it is when the carrier holds no valid parent."""
        if context is None:
            context = Context()
        decode, parents = traceparent.decode, getter.get(carrier, "traceparent")
        if not parents:
            decode = compact.decode
            parents = [value for value in getter.get(carrier, "tp") or () if not is_ordinary(("tp", value))]
        if len(parents) != 1:
            return context
        try:
            raw = decode(parents[0])
            states = getter.get(carrier, "tracestate")
            found = complete(raw, ",".join(states) if states else "", "")[0]
        except (TraceContextError, TypeError):
            return context
        return trace.set_span_in_context(NonRecordingSpan(to_span_context(found)), context)

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the current span's context; nothing when it is not valid."""
        span_context = trace.get_current_span(context).get_span_context()
        if not span_context.is_valid:
            return
        if self._compact:
            setter.set(carrier, "tp", from_span_context(span_context).compact)
        else:  # OpenTelemetry has the ids as numbers: the text comes from those at half the cost
            ids = f"{span_context.trace_id:032x}-{span_context.span_id:016x}"
            setter.set(carrier, "traceparent", f"00-{ids}-{span_context.trace_flags & 0xFF:02x}")
        state = span_context.trace_state
        if state and (header := _header(state)):
            setter.set(carrier, "tracestate", header)


class UserPropertyGetter(Getter[Sequence[tuple[str, str]]]):
    """Reads MQTT v5 user properties: a list of pairs in which a name may occur more than once."""

    def get(self, carrier: Sequence[tuple[str, str]], key: str) -> list[str] | None:
        """All values of a name, in order; None when there are none."""
        return [value for name, value in carrier if name == key] or None

    def keys(self, carrier: Sequence[tuple[str, str]]) -> list[str]:
        """The names, each once."""
        return list(dict.fromkeys(name for name, _ in carrier))


class UserPropertySetter(Setter[list[tuple[str, str]]]):
    """Writes MQTT v5 user properties. Changes the list: give it a copy when the application uses it again."""

    def set(self, carrier: list[tuple[str, str]], key: str, value: str) -> None:
        """Put a value in place of those the name has. A parent also takes the place of an old parent and its state."""
        old = ("traceparent", "tp", "tracestate") if key in ("traceparent", "tp") else (key,)
        carrier[:] = [item for item in carrier if item[0] not in old or is_ordinary(item)]
        carrier.append((key, value))


class PropertyMapGetter(Getter[Mapping[str, str]]):
    """Reads RocketMQ user properties."""

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        """The value of a name as a list of one; None when there is none."""
        value = carrier.get(key)
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        """The names."""
        return list(carrier)


class PropertyMapSetter(Setter[MutableMapping[str, str]]):
    """Writes RocketMQ user properties."""

    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        """Set a value. A parent takes the place of an old parent's state as well."""
        if key == "traceparent":
            carrier.pop("tracestate", None)
        carrier[key] = value


user_property_getter = UserPropertyGetter()
user_property_setter = UserPropertySetter()
property_map_getter = PropertyMapGetter()
property_map_setter = PropertyMapSetter()
