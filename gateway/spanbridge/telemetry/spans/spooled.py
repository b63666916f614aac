"""The trace of a message that goes on after the spool: its process span has ended, and its ids are the ones it had."""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING

from spanbridge.core.protobuf import text
from spanbridge.telemetry.spans import ids, wire
from spanbridge.telemetry.spans.trace import MessageTrace

if TYPE_CHECKING:
    from spanbridge.core.spooled import TraceIds
    from spanbridge.telemetry.spans.recipe import Begun, Following
    from spanbridge_context import TraceContext

_SPOOL = wire.fixed_fields("spool", 0, {}) + wire.LOCAL
_SPOOL_START = _SPOOL + wire.TRACE
_RANDOM = 2


class SpooledTrace(MessageTrace):
    """Ends with two spans: ``spool``, from the disk to the sending, and ``send``. ``received_ns`` is when the first
    begins, ``begun_ns`` when the second does. ``send`` holds the fixed fields of the send span."""

    __slots__ = ("send",)

    def __init__(  # noqa: PLR0917 - keyword arguments cost where a backlog drains
        self, send: bytes, kept: TraceIds, spooled_ns: int, begun_ns: int, size: int, tracestate: str
    ) -> None:
        self.send = send
        self.trace_id = kept.trace_id
        self.parent_id = self.extra = b""
        self.process_id = kept.process_id
        self.send_id = kept.send_id
        self.received_ns = spooled_ns
        self.begun_ns = begun_ns
        self.size = size
        self.tracestate = tracestate
        self.tried = False

    def processed(self, end_ns: int, error: str | None = None) -> bytes:
        """See the base class. It has ended before."""
        return b""

    def finish(self, end_ns: int, error: str | None = None) -> list[bytes]:
        """See the base class. Without a send span, the spool span holds the error."""
        if error is None and not self.tracestate:
            return self._sent(end_ns)
        state = text(3, self.tracestate) if self.tracestate else b""
        rest = wire.size_attribute(self.size) + state
        sent = error is None or self.tried
        times = wire.identity(self.trace_id, ids.span_id(), self.process_id, self.received_ns, self.begun_ns)
        spans = [wire.framed(_SPOOL + times + rest + wire.status(None if sent else error))]
        if sent:
            times = wire.identity(self.trace_id, self.send_id, self.process_id, self.begun_ns, end_ns)
            spans.append(wire.framed(self.send + times + rest + wire.status(error)))
        return spans

    def _sent(self, end_ns: int) -> list[bytes]:
        """The spans of a message that was sent, joined of pieces. Hot path while a backlog drains."""
        join, times, parent = b"".join, wire.times, self.process_id
        size = wire.SIZES.young.get(self.size) or wire.size_attribute(self.size)
        begun, trace_id = self.begun_ns, self.trace_id
        lived = times(self.received_ns, begun)
        spool = join((_SPOOL_START, trace_id, wire.SPAN, ids.span_id(), wire.PARENT, parent, lived, size))
        lived = times(begun, end_ns)
        send = join((self.send, wire.TRACE, trace_id, wire.SPAN, self.send_id, wire.PARENT, parent, lived, size))
        return [wire.frame(len(spool)) + spool, wire.frame(len(send)) + send]


def resumed(  # noqa: PLR0917
    send: bytes,
    following: Following,
    context: TraceContext | None,
    kept: TraceIds | None,
    spooled_ns: int,
    size: int,
) -> Begun:
    """What :meth:`.recipe.RecipeSpans.resume` gives. ``send`` is the fixed part of the send span."""
    followed = context if following.follow else None
    tracestate = "" if followed is None else followed.tracestate
    random = _RANDOM if followed is None else followed.flags & _RANDOM
    passed = followed.traceparent if followed is not None and following.passthrough else None
    if kept is None:
        trace_id = ids.trace_id() if followed is None else followed.trace_id_bytes
        return passed or f"00-{trace_id.hex()}-{ids.span_id().hex()}-{random:02x}", tracestate, None
    begun = time_ns()
    trace = SpooledTrace(send, kept, min(spooled_ns, begun), begun, size, tracestate)
    return passed or f"00-{kept.trace_id.hex()}-{kept.send_id.hex()}-{random | 1:02x}", tracestate, trace
