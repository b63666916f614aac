"""The one value everything is about: a trace context."""

import sys

from . import compact, traceparent
from .baggage import cap_baggage, parse_baggage
from .errors import ZERO_ID, TraceContextError
from .ids import id_bytes, random_id
from .traceparent import FLAG_RANDOM, FLAG_SAMPLED, KNOWN_FLAGS, ZERO_SPAN_ID
from .tracestate import normalise_tracestate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FREEZES = sys.implementation.name != "micropython"
"""Whether an object can change its class, and a class can refuse that its attributes are set."""

_set = object.__setattr__ if _FREEZES else setattr


_FLAG_BYTES = (b"\0", b"\1", b"\2", b"\3")

_ZEROS = "A" * 10
"""Every all-zero id has these characters in its compact form: 8 bytes from bit 136 on fill characters 23 to 32."""


class _Fields:
    """The fields of a context while it is made: plain attributes, the fastest that Python can set and read.

    docs/adr/0010 has the measurement.
    """

    __slots__ = ("baggage", "flags", "span_id_bytes", "trace_id_bytes", "tracestate")

    trace_id_bytes: bytes
    span_id_bytes: bytes
    flags: int
    tracestate: str
    baggage: str


class TraceContext(_Fields):
    """A W3C trace context: a parent, its tracestate and the baggage. Immutable, hashable, comparable.

    Its fields are ``trace_id_bytes`` (16 bytes), ``span_id_bytes`` (8 bytes), ``flags`` (0 to 255: test single bits and
    never compare the number, a sampled root has 3), ``tracestate`` and ``baggage`` (their values on the wire, ``""``
    when none). The other forms are made when they are asked for.

    :param trace_id: 32 lower-case hex digits or 16 bytes, not all zero.
    :param span_id: 16 lower-case hex digits or 8 bytes, not all zero. The specification calls it parent-id.
    :param flags: 0 to 255; bit 0 is ``sampled``, bit 1 says that the trace id is random.
    :param tracestate: header value, ``""`` when none.
    :param baggage: header value, ``""`` when none.
    :raises TraceContextError: one of them is not what W3C allows.
    """

    __slots__ = ()

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
        raw = traceparent.check(b"\0" + id_bytes(trace_id, 16) + id_bytes(span_id, 8) + bytes((flags,)))
        _set(self, "trace_id_bytes", raw[1:17])
        _set(self, "span_id_bytes", raw[17:25])
        _set(self, "flags", raw[25])
        _set(self, "tracestate", normalise_tracestate(tracestate))
        parse_baggage(baggage)
        _set(self, "baggage", cap_baggage(baggage)[0])

    @classmethod
    def new(cls, sampled: bool = True) -> "TraceContext":
        """The start of a new trace, with random ids and the flag that says so."""
        flags = FLAG_RANDOM | FLAG_SAMPLED if sampled else FLAG_RANDOM
        return make(random_id(16), random_id(8), flags)

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return self.trace_id_bytes.hex()

    @property
    def span_id(self) -> str:
        """16 lower-case hex digits."""
        return self.span_id_bytes.hex()

    @property
    def sampled(self) -> bool:
        """Whether the sender may have recorded its span."""
        return self.flags & FLAG_SAMPLED != 0

    @property
    def traceparent(self) -> str:
        """The text form, 55 characters."""
        return f"00-{self.trace_id_bytes.hex()}-{self.span_id_bytes.hex()}-{self.flags:02x}"

    @property
    def compact(self) -> str:
        """The compact form, 35 characters."""
        flags = _FLAG_BYTES[self.flags] if self.flags <= KNOWN_FLAGS else bytes((self.flags,))
        return compact.encode(b"\0" + self.trace_id_bytes + self.span_id_bytes + flags)

    def child(self, span_id: "str | bytes | None" = None) -> "TraceContext":
        """The context to send on from a span of one's own: the same trace, another span id (random when not given).

        Reserved flags are cleared, as W3C asks of who changes the parent.

        :raises TraceContextError: the span id is not 16 lower-case hex digits or 8 bytes, or is all zero.
        """
        span = random_id(8) if span_id is None else id_bytes(span_id, 8)
        if span == ZERO_SPAN_ID:
            raise TraceContextError("id: all zero", ZERO_ID)
        return make(self.trace_id_bytes, span, self.flags & KNOWN_FLAGS, self.tracestate, self.baggage)

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
            self.tracestate if tracestate is None else tracestate,
            self.baggage if baggage is None else baggage,
        )

    if _FREEZES:

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError("a TraceContext cannot be changed; replace() makes another one")

        def __delattr__(self, name: str) -> None:
            raise AttributeError("a TraceContext cannot be changed; replace() makes another one")

    def _parts(self) -> "tuple[bytes, bytes, int, str, str]":
        return self.trace_id_bytes, self.span_id_bytes, self.flags, self.tracestate, self.baggage

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TraceContext):
            return NotImplemented
        return self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __reduce__(self) -> "tuple[object, ...]":
        return make, self._parts()

    def __repr__(self) -> str:
        # Baggage is the application's own data, often personal: it does not belong in a log.
        size = len(self.baggage)
        return f"TraceContext({self.traceparent!r}, tracestate={self.tracestate!r}, baggage=<{size} bytes>)"


if _FREEZES:
    _draft: "Callable[[], _Fields]" = _Fields
else:
    _draft = lambda: object.__new__(TraceContext)  # noqa: E731 - a second definition is none to a type checker


def make(trace_id: bytes, span_id: bytes, flags: int, tracestate: str = "", baggage: str = "") -> TraceContext:
    """A context of parts that were checked already."""
    context = _draft()
    context.trace_id_bytes = trace_id
    context.span_id_bytes = span_id
    context.flags = flags
    context.tracestate = tracestate
    context.baggage = baggage
    if _FREEZES:
        context.__class__ = TraceContext
    return context  # type: ignore[return-value]


def make_of(raw: bytes, tracestate: str = "", baggage: str = "") -> TraceContext:
    """A context of 26 bytes and the values that came with them, all checked already."""
    return make(raw[1:17], raw[17:25], raw[25], tracestate, baggage)


def context_from_compact(text: str) -> "TraceContext | None":
    """The context of a compact form; None when it is not one, or has an all-zero id. Never raises.

    It reads what :func:`parse_compact` reads, faster: the context of almost every message comes this way.
    """
    raw = compact.read(text)
    if raw is None:
        return None
    if raw[0] or _ZEROS in text:
        try:
            return make_of(traceparent.check(raw))
        except TraceContextError:
            return None
    context = _draft()
    context.trace_id_bytes = raw[1:17]
    context.span_id_bytes = raw[17:25]
    context.flags = raw[25]
    context.tracestate = context.baggage = ""
    if _FREEZES:
        context.__class__ = TraceContext
    return context  # type: ignore[return-value]


def parse_traceparent(text: str) -> TraceContext:
    """The context of a ``traceparent`` value. Strict: no white space around it, no upper case, no trailing newline.

    :raises TraceContextError: ``problem`` is ``malformed`` or ``zero_id``.
    """
    return make_of(traceparent.decode(text))


def parse_compact(text: str) -> TraceContext:
    """The context of a compact form.

    :raises TraceContextError: ``problem`` is ``malformed`` or ``zero_id``.
    """
    return make_of(compact.decode(text))
