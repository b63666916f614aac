"""The trace of one message: ids and times while it is on its way, two spans when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spanbridge.core.protobuf import text
from spanbridge.telemetry.spans import wire
from spanbridge.telemetry.spans.wire import framed, identity

if TYPE_CHECKING:
    from spanbridge.telemetry.spans.recipe import RecordingSpans


class MessageTrace:
    """A message with spans. Ids are bytes; times are Unix time in nanoseconds; ``size`` is the body's in bytes.

    ``spans`` has what is fixed about the two spans, ``parent_id`` is empty for a root. ``extra`` is what only this
    message's process span has (a link, attributes). ``tried`` says that sending was tried: then the send span shows up
    also when the message is dropped.

    :class:`~spanbridge.telemetry.spans.recipe.RecordingSpans` makes these without a constructor, which would take as
    long again.
    """

    __slots__ = (
        "begun_ns", "extra", "parent_id", "process_id", "received_ns", "send_id", "size", "spans", "trace_id",
        "tracestate", "tried",
    )  # fmt: skip

    spans: RecordingSpans
    trace_id: bytes
    parent_id: bytes
    process_id: bytes
    send_id: bytes
    received_ns: int
    begun_ns: int
    size: int
    tracestate: str
    extra: bytes
    tried: bool

    @property
    def sends(self) -> bool:
        """Whether its send span is recorded."""
        return True

    def describe(self, attributes: bytes) -> None:
        """Give the ``process`` span some more attributes, encoded."""
        self.extra += attributes

    def processed(self, end_ns: int, error: str | None = None) -> bytes:
        """The process span, framed; empty where there is none."""
        times = identity(self.trace_id, self.process_id, self.parent_id, self.received_ns, end_ns)
        flags = wire.REMOTE if self.parent_id else wire.LOCAL
        return framed(self.spans.process + times + flags + self.extra + self._rest(error))

    def _rest(self, error: str | None) -> bytes:
        rest = wire.size_attribute(self.size) + wire.status(error)
        return rest + text(3, self.tracestate) if self.tracestate else rest

    def finish(self, end_ns: int, error: str | None = None) -> list[bytes]:
        """The spans, framed. ``error`` becomes their ``error.type``."""
        spans = [self.processed(end_ns, error)]
        if error is None or self.tried:
            times = identity(self.trace_id, self.send_id, self.process_id, self.begun_ns, end_ns)
            spans.append(framed(self.spans.send + times + wire.LOCAL + self._rest(error)))
        return spans


class AskedTrace(MessageTrace):
    """A message whose sampler was asked: either span may be missing, and both have attributes of their own.

    ``process`` and ``send`` are whole spans but for their end; empty ones are not recorded.
    """

    __slots__ = ("process", "send")

    def __init__(  # noqa: PLR0917 - keyword arguments cost on the hot path
        self, process: bytes, send: bytes, trace_id: bytes, process_id: bytes, send_id: bytes, tracestate: str
    ) -> None:
        self.process = process
        self.send = send
        self.trace_id = trace_id
        self.process_id = process_id
        self.send_id = send_id
        self.tracestate = tracestate
        self.tried = False

    @property
    def sends(self) -> bool:
        """See the base class."""
        return bool(self.send)

    def describe(self, attributes: bytes) -> None:
        """See the base class."""
        if self.process:
            self.process += attributes

    def processed(self, end_ns: int, error: str | None = None) -> bytes:
        """See the base class."""
        return (
            framed(self.process + b"\x41" + end_ns.to_bytes(8, "little") + wire.status(error)) if self.process else b""
        )

    def finish(self, end_ns: int, error: str | None = None) -> list[bytes]:
        """See the base class."""
        tail = b"\x41" + end_ns.to_bytes(8, "little") + wire.status(error)
        spans = [framed(self.process + tail)] if self.process else []
        if self.send and (error is None or self.tried):
            spans.append(framed(self.send + tail))
        return spans
