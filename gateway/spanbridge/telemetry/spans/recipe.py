"""The spans of one recipe's messages: what is fixed is encoded once, a message adds ids and times."""

from __future__ import annotations

from dataclasses import dataclass
from time import time_ns
from typing import TYPE_CHECKING, Protocol

from spanbridge.telemetry.spans import ids, wire
from spanbridge.telemetry.spans.bounds import ALWAYS, NEVER, Bounds
from spanbridge.telemetry.spans.spooled import resumed
from spanbridge.telemetry.spans.trace import MessageTrace

if TYPE_CHECKING:
    from spanbridge.core.spooled import TraceIds
    from spanbridge_context import TraceContext

_SAMPLED = 1
_RANDOM = 2
_FLAGS = ("00", "01", "02", "03")
_new = object.__new__

Begun = tuple[str, str, MessageTrace | None]
"""``traceparent`` and ``tracestate`` to send on, and the trace to end later. None: no spans are made.

``traceparent`` is "" only when tracing is off and the device sent no context: then nothing is to be injected.
"""


class RecipeSpans(Protocol):
    """Begins the traces of one recipe's messages."""

    def begin(self, context: TraceContext | None, received_ns: int, size: int, begun_ns: int = 0) -> Begun:
        """Decide sampling and make ids for a message that is now being processed.

        ``context`` is what the device sent, ``size`` the body's in bytes. ``received_ns`` and ``begun_ns``, by which
        its processing began, are Unix time in nanoseconds; 0 stands for now. Hot path; never raises.
        """

    def resume(
        self, context: TraceContext | None, kept: TraceIds | None, spooled_ns: int, size: int, begun_ns: int = 0
    ) -> Begun:
        """Go on with a message out of the spool, where it was from ``spooled_ns`` to ``begun_ns`` (Unix time; 0: now).

        ``kept`` are its ids; None when its spans are not recorded. The context that travels on is the one from before.
        """


@dataclass(frozen=True, slots=True)
class Following:
    """What becomes of the sender's context: ``follow`` it as the parent, ``link`` to it, ``passthrough`` its text.

    ``unlinked`` says that no link is allowed (OTEL_SPAN_LINK_COUNT_LIMIT=0): the one that is left out is counted.
    """

    follow: bool
    link: bool
    passthrough: bool
    unlinked: bool = False

    def link_field(self, trace_id: bytes, span_id: bytes) -> bytes:
        """The field of the link to the sender's span, or of its absence."""
        return wire.LINK_DROPPED if self.unlinked else wire.link(trace_id, span_id, remote=True)


class SilentSpans:
    """Tracing is off: the device's context travels on, unchanged, and none is made up."""

    __slots__ = ("_trust",)

    def __init__(self, *, trust: bool) -> None:
        self._trust = trust

    def begin(self, context: TraceContext | None, received_ns: int, size: int, begun_ns: int = 0) -> Begun:
        """Make no spans."""
        if context is None or not self._trust:
            return "", "", None
        return context.traceparent, context.tracestate, None

    def resume(
        self, context: TraceContext | None, kept: TraceIds | None, spooled_ns: int, size: int, begun_ns: int = 0
    ) -> Begun:
        """Make no spans."""
        return self.begin(context, spooled_ns, size)


class RecordingSpans:
    """Traces under samplers that can be decided by a comparison (see :mod:`.sampling`).

    ``process`` and ``send`` are the fixed fields of the two spans, each in two parts: what many recipes share, as one
    object, and what is this one's own. So the memory that ten thousand topics touch stays small. The tag of the span's
    id ends the first part, that of the trace's id the second.
    """

    __slots__ = (
        "_bounds", "_following", "_resumed", "process_own", "process_shared", "process_size", "send_own", "send_shared",
        "send_size",
    )  # fmt: skip

    def __init__(
        self, process: tuple[bytes, bytes], send: tuple[bytes, bytes], bounds: Bounds, following: Following
    ) -> None:
        self.process_shared, self.process_own = process
        self.process_size = wire.shared_size(len(self.process_shared) + len(self.process_own) + wire.CHILD_SIZE)
        self.send_shared, self.send_own = send
        self.send_size = wire.shared_size(len(self.send_shared) + len(self.send_own) + wire.CHILD_SIZE)
        self._bounds = bounds
        self._following = following
        self._resumed = b""
        """The fixed fields of send spans of messages out of the spool; made when the first one comes."""

    @property
    def process(self) -> bytes:
        """The fixed fields of process spans."""
        return self.process_shared[: -len(wire.SPAN)] + self.process_own[: -len(wire.TRACE)]

    @property
    def send(self) -> bytes:
        """The fixed fields of send spans."""
        return self.send_shared[: -len(wire.SPAN)] + self.send_own[: -len(wire.TRACE)]

    def begin(self, context: TraceContext | None, received_ns: int, size: int, begun_ns: int = 0) -> Begun:
        """See :class:`RecipeSpans`."""
        following = self._following
        if context is None or not following.follow:
            return self._start(context if following.link else None, received_ns, size, begun_ns)
        flags = context.flags
        trace_id = context.trace_id_bytes
        bound = self._bounds.sampled_parent if flags & _SAMPLED else self._bounds.unsampled_parent
        process_id, send_id = ids.pair()
        tracestate = context.tracestate
        if bound != ALWAYS and (bound == NEVER or int.from_bytes(trace_id[8:]) >= bound):
            if following.passthrough:
                return context.traceparent, tracestate, None
            return f"00-{trace_id.hex()}-{send_id.hex()}-{_FLAGS[flags & _RANDOM]}", tracestate, None
        traceparent = (
            context.traceparent
            if following.passthrough
            else f"00-{trace_id.hex()}-{send_id.hex()}-{_FLAGS[flags & _RANDOM | _SAMPLED]}"
        )
        trace = _new(MessageTrace)
        trace.spans = self
        trace.trace_id = trace_id
        trace.parent_id = context.span_id_bytes
        trace.process_id = process_id
        trace.send_id = send_id
        trace.begun_ns = begun_ns = begun_ns or time_ns()
        trace.received_ns = received_ns or begun_ns
        trace.size = size
        trace.tracestate = tracestate
        trace.extra = b""
        trace.tried = False
        return traceparent, tracestate, trace

    def resume(
        self, context: TraceContext | None, kept: TraceIds | None, spooled_ns: int, size: int, begun_ns: int = 0
    ) -> Begun:
        """See :class:`RecipeSpans`."""
        send = self._resumed
        if not send:
            send = self._resumed = self.send + wire.LOCAL + wire.TRACE
        return resumed(send, self._following, context, kept, spooled_ns, size, begun_ns)

    def _start(self, linked: TraceContext | None, received_ns: int, size: int, begun_ns: int) -> Begun:
        trace_id = ids.trace_id()
        process_id, send_id = ids.pair()
        bound = self._bounds.root
        if bound != ALWAYS and (bound == NEVER or int.from_bytes(trace_id[8:]) >= bound):
            return f"00-{trace_id.hex()}-{send_id.hex()}-02", "", None
        trace = _new(MessageTrace)
        trace.spans = self
        trace.trace_id = trace_id
        trace.parent_id = b""
        trace.process_id = process_id
        trace.send_id = send_id
        trace.begun_ns = begun_ns = begun_ns or time_ns()
        trace.received_ns = received_ns or begun_ns
        trace.size = size
        trace.tracestate = ""
        trace.extra = b"" if linked is None else self._following.link_field(linked.trace_id_bytes, linked.span_id_bytes)
        trace.tried = False
        return f"00-{trace_id.hex()}-{send_id.hex()}-03", "", trace
