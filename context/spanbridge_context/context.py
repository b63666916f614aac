"""The one value everything is about: a trace context."""

import os

from . import compact, traceparent
from .baggage import cap_baggage, parse_baggage
from .errors import TraceContextError
from .traceparent import FLAG_RANDOM, FLAG_SAMPLED, KNOWN_FLAGS
from .tracestate import normalise_tracestate

_new = object.__new__


class TraceContext:
    """A W3C trace context: a parent, its tracestate and the baggage. Immutable, hashable, comparable.

    :param trace_id: 32 lower-case hex digits or 16 bytes, not all zero.
    :param span_id: 16 lower-case hex digits or 8 bytes, not all zero. The specification calls it parent-id.
    :param flags: 0 to 255; bit 0 is ``sampled``, bit 1 says that the trace id is random.
    :param tracestate: header value, ``""`` when none.
    :param baggage: header value, ``""`` when none.
    :raises TraceContextError: one of them is not what W3C allows.
    """

    # The 26 bytes are kept, not the text: the gateway needs binary ids for OTLP and hashes, and text once.
    # docs/adr/0010 has the measurement.
    __slots__ = ("_baggage", "_raw", "_tracestate")

    def __init__(
        self,
        trace_id: "str | bytes",
        span_id: "str | bytes",
        flags: int = FLAG_SAMPLED,
        tracestate: str = "",
        baggage: str = "",
    ) -> None:
        if not isinstance(flags, int) or not 0 <= flags <= 255:
            raise TraceContextError("flags: not an integer from 0 to 255")
        raw = b"\0" + _id(trace_id, 16) + _id(span_id, 8) + bytes((flags,))
        self._raw = traceparent.check(raw)
        self._tracestate = normalise_tracestate(tracestate)
        parse_baggage(baggage)
        self._baggage = cap_baggage(baggage)[0]

    @classmethod
    def new(cls, sampled: bool = True) -> "TraceContext":
        """The start of a new trace, with random ids and the flag that says so."""
        flags = FLAG_RANDOM | FLAG_SAMPLED if sampled else FLAG_RANDOM
        return make(b"\0" + random_id(16) + random_id(8) + bytes((flags,)), "", "")

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return self._raw[1:17].hex()

    @property
    def span_id(self) -> str:
        """16 lower-case hex digits."""
        return self._raw[17:25].hex()

    @property
    def flags(self) -> int:
        """The trace flags, 0 to 255. Test single bits, never compare the number: a sampled root has 3."""
        return self._raw[25]

    @property
    def sampled(self) -> bool:
        """Whether the sender may have recorded its span."""
        return self._raw[25] & FLAG_SAMPLED != 0

    @property
    def tracestate(self) -> str:
        """The tracestate's value, ``""`` when none."""
        return self._tracestate

    @property
    def baggage(self) -> str:
        """The baggage's value as on the wire, ``""`` when none."""
        return self._baggage

    @property
    def trace_id_bytes(self) -> bytes:
        """16 bytes."""
        return self._raw[1:17]

    @property
    def span_id_bytes(self) -> bytes:
        """8 bytes."""
        return self._raw[17:25]

    @property
    def traceparent(self) -> str:
        """The text form, 55 characters."""
        return traceparent.encode(self._raw)

    @property
    def compact(self) -> str:
        """The compact form, 35 characters."""
        return compact.encode(self._raw)

    def child(self, span_id: "str | bytes | None" = None) -> "TraceContext":
        """The context to send on from a span of one's own: the same trace, another span id (random when not given).

        Reserved flags are cleared, as W3C asks of who changes the parent.

        :raises TraceContextError: the span id is not 16 lower-case hex digits or 8 bytes, or is all zero.
        """
        raw = self._raw
        span = random_id(8) if span_id is None else _id(span_id, 8)
        raw = raw[:17] + span + bytes((raw[25] & KNOWN_FLAGS,))
        return make(traceparent.check(raw), self._tracestate, self._baggage)

    def replace(
        self,
        trace_id: "str | bytes | None" = None,
        span_id: "str | bytes | None" = None,
        flags: "int | None" = None,
        tracestate: "str | None" = None,
        baggage: "str | None" = None,
    ) -> "TraceContext":
        """A context with some fields changed.

        :raises TraceContextError: as the constructor.
        """
        return TraceContext(
            self.trace_id_bytes if trace_id is None else trace_id,
            self.span_id_bytes if span_id is None else span_id,
            self.flags if flags is None else flags,
            self._tracestate if tracestate is None else tracestate,
            self._baggage if baggage is None else baggage,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TraceContext):
            return NotImplemented
        return self._raw == other._raw and self._tracestate == other._tracestate and self._baggage == other._baggage

    def __hash__(self) -> int:
        return hash((self._raw, self._tracestate, self._baggage))

    def __repr__(self) -> str:
        # Baggage is the application's own data, often personal: it does not belong in a log.
        size = len(self._baggage)
        return f"TraceContext({self.traceparent!r}, tracestate={self._tracestate!r}, baggage=<{size} bytes>)"


def make(raw: bytes, tracestate: str, baggage: str) -> TraceContext:
    """A context of parts that were checked already."""
    context: TraceContext = _new(TraceContext)
    context._raw = raw
    context._tracestate = tracestate
    context._baggage = baggage
    return context


def parse_traceparent(text: str) -> TraceContext:
    """The context of a ``traceparent`` value. Strict: no white space around it, no upper case, no trailing newline.

    :raises TraceContextError: ``problem`` is ``malformed`` or ``zero_id``.
    """
    return make(traceparent.decode(text), "", "")


def parse_compact(text: str) -> TraceContext:
    """The context of a compact form.

    :raises TraceContextError: ``problem`` is ``malformed`` or ``zero_id``.
    """
    return make(compact.decode(text), "", "")


def random_id(size: int) -> bytes:
    """``size`` random bytes, not all zero."""
    while True:
        value = _random_bytes(size)
        if value != bytes(size):
            return value


if hasattr(os, "urandom"):
    _random_bytes = os.urandom
else:  # MicroPython ports without a source of entropy in ``os``

    def _random_bytes(size: int) -> bytes:
        from random import getrandbits  # noqa: PLC0415 - not where ``os`` has it

        return bytes([getrandbits(8) for _ in range(size)])


def _id(value: "str | bytes", size: int) -> bytes:
    if isinstance(value, bytes) and len(value) == size:
        return value
    try:
        if len(value) == 2 * size:
            raw = bytes.fromhex(value)  # type: ignore[arg-type]
            if raw.hex() == value:
                return raw
    except (TypeError, ValueError):
        pass
    raise TraceContextError(f"id: not {size} bytes or {2 * size} lower-case hex digits")
