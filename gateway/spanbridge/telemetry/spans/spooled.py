"""The trace of a message that goes on after the spool: its process span has ended, and its ids are the ones it had."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING

from spanbridge.core.protobuf import SMALL, text
from spanbridge.telemetry.spans import ids, wire
from spanbridge.telemetry.spans.trace import MessageTrace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spanbridge.core.spooled import TraceIds
    from spanbridge.telemetry.spans.recipe import Begun, Following
    from spanbridge_context import TraceContext

_SPOOL = wire.fixed_fields("spool", 0, {}) + wire.LOCAL
_SPOOL_START = _SPOOL + wire.TRACE
_SIZE = wire.CHILD_SIZE - len(wire.LOCAL) + len(wire.SPAN)
"""Bytes of ids, times and status behind such a start, up to the body's size."""
_RANDOM = 2
_FLAGS = ("00", "01", "02", "03")
_new = object.__new__


class SpooledTrace(MessageTrace):
    """Ends with two spans: ``spool``, from the disk to the sending, and ``send``. ``received_ns`` is when the first
    begins, ``begun_ns`` when the second does. ``send`` holds the fixed fields of the send span, up to the tag of the
    trace's id."""

    __slots__ = ("send",)

    send: bytes

    def processed(self, end_ns: int, error: str | None = None) -> bytes:
        """See the base class. It has ended before."""
        return b""

    def finish(self, end_ns: int, error: str | None = None) -> list[bytes]:
        """See the base class. Without a send span, the spool span holds the error."""
        state = text(3, self.tracestate) if self.tracestate else b""
        rest = wire.size_attribute(self.size) + state
        sent = error is None or self.tried
        times = wire.identity(self.trace_id, ids.span_id(), self.process_id, self.received_ns, self.begun_ns)
        spans = [wire.framed(_SPOOL + times + rest + wire.status(None if sent else error))]
        if sent:
            times = wire.identity(self.trace_id, self.send_id, self.process_id, self.begun_ns, end_ns)
            spans.append(wire.framed(self.send[: -len(wire.TRACE)] + times + rest + wire.status(error)))
        return spans


def stored(traces: Sequence[SpooledTrace], end_ns: int) -> list[bytes]:
    """The spans of messages that were sent, in nine pieces each. Hot path while a backlog drains."""
    pieces: list[bytes] = []
    add, frames, sizes, span, parented = pieces.extend, wire.FRAMES, wire.SIZES.young, wire.SPAN, wire.PARENT
    received_ns = begun_ns = -1
    waited = sent = b""
    for trace in traces:
        if trace.received_ns != received_ns or trace.begun_ns != begun_ns:  # messages of one write have the same
            received_ns, begun_ns = trace.received_ns, trace.begun_ns
            waited, sent = wire.times(received_ns, begun_ns), wire.times(begun_ns, end_ns)
        trace_id, parent, send = trace.trace_id, trace.process_id, trace.send
        rest = sizes.get(trace.size) or wire.size_attribute(trace.size)
        if trace.tracestate:
            rest += text(3, trace.tracestate)
        more = _SIZE + len(rest)
        length = len(_SPOOL_START) + more
        add((
            frames[length] if length < SMALL else wire.frame(length), _SPOOL_START, trace_id, span, ids.pair()[0],
            parented, parent, waited, rest,
        ))  # fmt: skip
        length = len(send) + more
        add((
            frames[length] if length < SMALL else wire.frame(length), send, trace_id, span, trace.send_id,
            parented, parent, sent, rest,
        ))  # fmt: skip
    return pieces


def resumed(  # noqa: PLR0917
    send: bytes,
    following: Following,
    context: TraceContext | None,
    kept: TraceIds | None,
    spooled_ns: int,
    size: int,
    begun_ns: int,
) -> Begun:
    """What :meth:`.recipe.RecipeSpans.resume` gives. ``send`` is the fixed part of the send span, as in
    :class:`SpooledTrace`."""
    tracestate, flags, passed = "", _RANDOM, None
    if context is not None and following.follow:
        tracestate, flags = context.tracestate, context.flags & _RANDOM
        passed = context.traceparent if following.passthrough else None
    if kept is None:
        followed = context if following.follow else None
        trace_id = ids.trace_id() if followed is None else followed.trace_id_bytes
        return passed or f"00-{trace_id.hex()}-{ids.span_id().hex()}-{_FLAGS[flags]}", tracestate, None
    trace = _new(SpooledTrace)
    trace.send = send
    trace.trace_id, trace.process_id, trace.send_id = trace_id, _, send_id = kept
    trace.parent_id = trace.extra = b""
    trace.begun_ns = begun_ns = begun_ns or time_ns()
    trace.received_ns = spooled_ns if spooled_ns < begun_ns else begun_ns
    trace.size = size
    trace.tracestate = tracestate
    trace.tried = False
    return passed or f"00-{trace_id.hex()}-{send_id.hex()}-{_FLAGS[flags | 1]}", tracestate, trace
