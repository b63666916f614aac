"""Traces of one route's messages: what is fixed is encoded once, a message costs two joins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from time import time_ns
from typing import TYPE_CHECKING, Protocol

from opentelemetry.trace import SpanKind

from spanbridge.core.message import Address, Publish
from spanbridge.telemetry import ids, sampling, trace, wire
from spanbridge.telemetry.sampling import Bounds
from spanbridge.telemetry.trace import MessageTrace, RecordedTrace

if TYPE_CHECKING:
    from spanbridge_context import TraceContext

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SIZE = "messaging.message.body.size"
DESTINATION = "messaging.destination.name"

# trace_id (1), span_id (2), parent_span_id (4), start_time_unix_nano (7)
_CHILD = Struct("<2s16s2s8s2s8sBQ").pack
_ROOT = Struct("<2s16s2s8sBQ").pack

_SAMPLED = 1
_RANDOM = 2
_FLAGS = ("00", "01", "02", "03")
_KEPT = 8192
_LONGEST_KEPT = 256
"""Characters of a topic that is worth keeping: devices choose them, and may choose thousands of 64 KiB."""

_sizes: dict[int, bytes] = {}


class RouteTracer(Protocol):
    """Begins the traces of messages that one filter matched and that go to one RocketMQ topic."""

    def begin(self, publish: Publish, context: TraceContext | None, address: Address | None = None) -> MessageTrace:
        """Decide sampling and make ids for a message that is now being processed.

        ``context`` is what the device sent. ``address``, when given, adds tag, keys, message group and delivery time to
        the ``send`` span; unless the route is ``per_message``, all messages of one MQTT topic have the same. Hot path;
        never raises.
        """


class SilentRoute:
    """Tracing is off: the device's context travels on, unchanged, and none is made up."""

    def __init__(self, *, trust: bool) -> None:
        self._trust = trust

    def begin(self, publish: Publish, context: TraceContext | None, address: Address | None = None) -> MessageTrace:
        """Make no spans."""
        if context is None or not self._trust:
            return MessageTrace("", "")
        return MessageTrace(context.traceparent, context.tracestate)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSpans:
    """What the two spans of a route's messages have in common."""

    process_name: str
    send_name: str
    process_attributes: dict[str, object]
    send_attributes: dict[str, object]
    per_message: bool = False
    """Whether messages of one MQTT topic may have different addresses."""
    value_limit: int | None = None
    """Longest string attribute, in characters (OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT); None is no limit."""

    def cut(self, attributes: dict[str, object]) -> dict[str, object]:
        """Attributes within the limit."""
        limit = self.value_limit
        if limit is None:
            return attributes
        return {name: _cut(value, limit) for name, value in attributes.items()}

    def encode(self, name: str, kind: SpanKind, attributes: dict[str, object]) -> bytes:
        """The fixed fields of a span: name (5), kind (6) and attributes (9)."""
        # The API counts kinds from INTERNAL = 0, the protocol from INTERNAL = 1.
        return wire.text(5, name) + b"0" + wire.varint(kind.value + 1) + wire.attributes(9, self.cut(attributes))


class RecordingRoute:
    """Traces of one route under samplers that can be decided by a comparison (see :mod:`.sampling`)."""

    def __init__(self, spans: RouteSpans, bounds: Bounds, *, follow: bool, link: bool, passthrough: bool) -> None:
        self._spans = spans
        self._bounds = bounds
        self._follow = follow
        self._link = link
        self._passthrough = passthrough
        self._process = spans.encode(spans.process_name, SpanKind.CONSUMER, spans.process_attributes)
        self._send = spans.encode(spans.send_name, SpanKind.PRODUCER, spans.send_attributes) + trace.LOCAL
        self._topics: dict[str, tuple[bytes, bytes]] = {}

    def begin(self, publish: Publish, context: TraceContext | None, address: Address | None = None) -> MessageTrace:
        """See :class:`RouteTracer`."""
        if context is not None and self._follow:
            return self._continue(publish, context, address)
        return self._start(publish, context if self._link else None, address)

    def _continue(self, publish: Publish, context: TraceContext, address: Address | None) -> MessageTrace:
        flags = context.flags
        trace_id = context.trace_id_bytes
        bounds = self._bounds
        bound = bounds.sampled_parent if flags & _SAMPLED else bounds.unsampled_parent
        send_id = ids.span_id()
        tracestate = context.tracestate
        if bound == sampling.NEVER or (bound != sampling.ALWAYS and int.from_bytes(trace_id[8:]) >= bound):
            if self._passthrough:
                return MessageTrace(context.traceparent, tracestate)
            return MessageTrace(f"00-{trace_id.hex()}-{send_id.hex()}-{_FLAGS[flags & _RANDOM]}", tracestate)
        process_id = ids.span_id()
        start = _CHILD(
            b"\n\x10",
            trace_id,
            b"\x12\x08",
            process_id,
            b'"\x08',
            context.span_id_bytes,
            0x39,
            publish.received_ns or time_ns(),
        )
        extra = trace.REMOTE + wire.text(3, tracestate) if tracestate else trace.REMOTE
        traceparent = (
            context.traceparent
            if self._passthrough
            else f"00-{trace_id.hex()}-{send_id.hex()}-{_FLAGS[flags & _RANDOM | _SAMPLED]}"
        )
        return self._record(publish, address, traceparent, tracestate, trace_id, process_id, send_id, start, extra)

    def _start(self, publish: Publish, linked: TraceContext | None, address: Address | None) -> MessageTrace:
        trace_id = ids.trace_id()
        send_id = ids.span_id()
        bound = self._bounds.root
        if bound == sampling.NEVER or (bound != sampling.ALWAYS and int.from_bytes(trace_id[8:]) >= bound):
            return MessageTrace(f"00-{trace_id.hex()}-{send_id.hex()}-02", "")
        process_id = ids.span_id()
        start = _ROOT(b"\n\x10", trace_id, b"\x12\x08", process_id, 0x39, publish.received_ns or time_ns())
        extra = trace.LOCAL
        if linked is not None:
            extra += trace.link(linked.trace_id_bytes, linked.span_id_bytes, remote=True)
        traceparent = f"00-{trace_id.hex()}-{send_id.hex()}-03"
        return self._record(publish, address, traceparent, "", trace_id, process_id, send_id, start, extra)

    def _record(  # noqa: PLR0917 - keyword arguments cost on the hot path
        self,
        publish: Publish,
        address: Address | None,
        traceparent: str,
        tracestate: str,
        trace_id: bytes,
        process_id: bytes,
        send_id: bytes,
        start: bytes,
        extra: bytes,
    ) -> MessageTrace:
        known = self._topics.get(publish.topic)
        if known is None:
            known = self._learn(publish.topic, address)
        on_process, on_send = known
        if self._spans.per_message:
            on_send = self._address(address)
        size = _sizes.get(len(publish.payload)) or size_attribute(len(publish.payload))
        process = b"%b%b%b%b%b" % (self._process, on_process, start, extra, size)
        begun = _CHILD(b"\n\x10", trace_id, b"\x12\x08", send_id, b'"\x08', process_id, 0x39, time_ns())
        send = b"%b%b%b%b" % (self._send, on_send, begun, size)
        if tracestate:
            send += wire.text(3, tracestate)
        return RecordedTrace(traceparent, tracestate, trace.head(process), trace.head(send), trace_id, send_id)

    def _learn(self, topic: str, address: Address | None) -> tuple[bytes, bytes]:
        known = (wire.attributes(9, self._spans.cut({DESTINATION: topic})), self._address(address))
        if len(topic) <= _LONGEST_KEPT:
            if len(self._topics) >= _KEPT:
                self._topics.clear()
            self._topics[topic] = known
        return known

    def _address(self, address: Address | None) -> bytes:
        return wire.attributes(9, self._spans.cut(address_attributes(address)))


def address_attributes(address: Address | None) -> dict[str, object]:
    """What semantic conventions say of a RocketMQ message's address."""
    if address is None:
        return {}
    found: dict[str, object] = {}
    if address.tag is not None:
        found["messaging.rocketmq.message.tag"] = address.tag
    if address.keys:
        found["messaging.rocketmq.message.keys"] = tuple(address.keys)
    if address.group is not None:
        found["messaging.rocketmq.message.group"] = address.group
    if address.delivery_timestamp_ms is not None:
        found["messaging.rocketmq.message.delivery_timestamp"] = address.delivery_timestamp_ms
    return found


def size_attribute(size: int, _encode: Callable[[int, str, object], bytes] = wire.attribute) -> bytes:
    """The attribute for a body size in bytes; those met are kept."""
    if len(_sizes) >= _KEPT:
        _sizes.clear()
    encoded = _sizes[size] = _encode(9, SIZE, size)
    return encoded


def _cut(value: object, limit: int) -> object:
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, tuple):
        return tuple(_cut(item, limit) for item in value)
    return value
