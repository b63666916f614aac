"""The traces of messages: light records that hold their two spans as OTLP bytes, but for the end."""

from __future__ import annotations

from struct import Struct

from spanbridge.telemetry import wire

# Span.flags (16) of trace.proto: bit 8 says that bit 9 means something, bit 9 that the parent is remote.
LOCAL = b"\x85\x01\x00\x01\x00\x00"
REMOTE = b"\x85\x01\x00\x03\x00\x00"
STATUS_UNSET = b"z\x00"
STATUS_ERROR = b"z\x02\x18\x02"

_END = Struct("<BQ").pack  # end_time_unix_nano (8)
_TAIL_LENGTH = 11  # what a span that ended well has after its head: end time and status


class MessageTrace:
    """The trace of one message that is not recorded.

    ``traceparent`` and ``tracestate`` are what goes into RocketMQ; ``traceparent`` is "" only when tracing is off and
    the device sent no context, in which case nothing is to be injected. ``tracestate`` is "" when there is none.
    """

    __slots__ = ("traceparent", "tracestate")

    process: bytes = b""
    send: bytes = b""
    trace_id: bytes = b""
    send_id: bytes = b""
    tried: bool = False

    def __init__(self, traceparent: str, tracestate: str) -> None:
        self.traceparent = traceparent
        self.tracestate = tracestate

    def try_failed(self) -> None:
        """Sending was tried and failed, so that the ``send`` span shows up even when the message is dropped."""

    @property
    def recorded(self) -> bool:
        """Whether this message has spans."""
        return bool(self.process or self.send)


class RecordedTrace(MessageTrace):
    """A message with spans: ``process`` and ``send`` are framed spans up to, not including, end time and status."""

    __slots__ = ("process", "send", "send_id", "trace_id", "tried")

    def __init__(  # noqa: PLR0917 - keyword arguments cost on the hot path
        self, traceparent: str, tracestate: str, process: bytes, send: bytes, trace_id: bytes, send_id: bytes
    ) -> None:
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.process = process
        self.send = send
        self.trace_id = trace_id
        self.send_id = send_id
        self.tried = False

    def try_failed(self) -> None:
        """See the base class."""
        self.tried = True


def head(body: bytes) -> bytes:
    """Frame a span's body so that :func:`ended` completes it."""
    return wire.span_prefix(len(body) + _TAIL_LENGTH) + body


def ended(end_ns: int) -> bytes:
    """What completes the heads of spans that ended well at ``end_ns`` (Unix time in nanoseconds)."""
    return _END(0x41, end_ns) + STATUS_UNSET


def failed(framed_head: bytes, end_ns: int, reason: str) -> bytes:
    """A whole span with error status and ``error.type``, from its head."""
    body = wire.unprefixed(framed_head) + _END(0x41, end_ns) + STATUS_ERROR + wire.attribute(9, "error.type", reason)
    return wire.span_prefix(len(body)) + body


def link(trace_id: bytes, span_id: bytes, *, remote: bool) -> bytes:
    """A ``Span.links`` field (13). Like the SDK's encoder, it carries no trace state."""
    flags = b"\x00\x03\x00\x00" if remote else b"\x00\x01\x00\x00"
    return b"j\x21\n\x10%b\x12\x08%b5%b" % (trace_id, span_id, flags)
