"""The gateway's tracer: prepares the spans of recipes, and ends messages' spans a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind

from spanbridge.core.cache import Generations
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.protobuf import SMALL, text, varint
from spanbridge.telemetry.direction import DESTINATION
from spanbridge.telemetry.env import TelemetryConfigError
from spanbridge.telemetry.spans import ids, wire
from spanbridge.telemetry.spans.calls import CallLimits, CallSpans, SpanSink
from spanbridge.telemetry.spans.describe import Descriptions
from spanbridge.telemetry.spans.hop import Hop, cut
from spanbridge.telemetry.spans.recipe import Following, RecipeSpans, RecordingSpans, SilentSpans
from spanbridge.telemetry.spans.spooled import SpooledTrace, stored
from spanbridge.telemetry.spans.trace import AskedTrace, MessageTrace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanLimits
    from opentelemetry.sdk.trace.sampling import Sampler

    from spanbridge.core.message import Message
    from spanbridge.telemetry.spans.bounds import Bounds

_COUNTS = 1024
"""Sizes of batches whose attribute is kept in encoded form."""
_PIECES = 9
"""Pieces of a span, in :meth:`Tracer.stored`."""
_KEPT = 2048
"""Destinations whose request spans are prepared at a time: devices may have a say in a topic's name."""


class Tracer:
    """One per gateway; not for several threads.

    ``sink`` is where ended spans go, None when tracing is off. Times are Unix time in nanoseconds.

    :raises TelemetryConfigError: a variable of the SDK's span limits cannot be used.
    """

    def __init__(
        self, sink: SpanSink | None, *, sampler: Sampler | None = None, limits: SpanLimits | None = None
    ) -> None:
        self._sink = sink
        self._sampler: Sampler
        self._bounds: Bounds | None = None
        self._value_limit: int | None = None
        self._max_links: int | None = None
        self._requests: Generations[tuple[str, str, str], bytes] = Generations(_KEPT)
        self._shared: Generations[bytes, bytes] = Generations(_KEPT)
        self._followings: dict[tuple[ContextPolicy, bool], Following] = {}
        self._counts: dict[int, bytes] = {}
        self._descriptions = Descriptions(None)
        if sink is not None:
            self._prepare(sampler, limits)

    def _prepare(self, sampler: Sampler | None, limits: SpanLimits | None) -> None:
        from spanbridge.telemetry.spans import sampling  # noqa: PLC0415 - the SDK is loaded where spans are made

        self._sampler = sampler or sampling.sampler_from_environment()
        self._bounds = sampling.bounds(self._sampler)
        limits = limits or _limits_from_environment()
        self._value_limit = limits.max_span_attribute_length
        self._max_links = limits.max_links
        self._descriptions = Descriptions(self._value_limit)

    @property
    def enabled(self) -> bool:
        """Whether any spans are made."""
        return self._sink is not None

    def spans(self, process: Hop, send: Hop, *, policy: ContextPolicy, trust: bool) -> RecipeSpans:
        """The spans of messages that are processed at one hop and sent to the other."""
        if self._sink is None:
            return SilentSpans(trust=trust)
        following = self._following(policy, trust=trust)
        if self._bounds is None:
            from spanbridge.telemetry.spans.asking import AskingSpans  # noqa: PLC0415 - see above

            return AskingSpans(process, send, self._sampler, following, self._value_limit)
        return RecordingSpans(
            self._parts(process, SpanKind.CONSUMER), self._parts(send, SpanKind.PRODUCER), self._bounds, following
        )

    def calls(self, hop: Hop) -> CallSpans | None:
        """The spans of calls that concern several messages, such as ``receive``; None when tracing is off."""
        if self._sink is None:
            return None
        limits = CallLimits(self._value_limit, self._max_links)
        return CallSpans(hop, self._sink, self._sampler, self._bounds, limits)

    def describe(self, trace: MessageTrace | None, message: Message) -> None:
        """Say on the ``process`` span what a RocketMQ message is called. Hot path."""
        if trace is not None:
            trace.describe(self._descriptions.of(message))

    def _following(self, policy: ContextPolicy, *, trust: bool) -> Following:
        following = self._followings.get((policy, trust))
        if following is None:
            following = self._followings[policy, trust] = Following(
                follow=trust and policy is not ContextPolicy.LINK,
                link=trust and policy is ContextPolicy.LINK,
                passthrough=policy is ContextPolicy.PASSTHROUGH,
                unlinked=self._max_links == 0,
            )
        return following

    def requested(
        self,
        hop: Hop,
        traces: Sequence[MessageTrace | None],
        start_ns: int,
        end_ns: int,
        error: str | None = None,
    ) -> None:
        """Record one request with a batch of messages: a CLIENT span with a link per recorded message, if any is.

        ``hop`` is where it went, without what is a message's own. ``error`` is its ``error.type``.
        """
        if self._sink is None:
            return
        if error is not None:
            error = error[: self._value_limit]
            for trace in traces:
                if trace is not None:
                    trace.tried = True
        linked = [trace for trace in traces if trace is not None and (type(trace) is not AskedTrace or trace.sends)]
        if linked:
            self._sink.add((self._request_span(hop, linked, len(traces), start_ns, end_ns, error),))

    def stored(self, traces: Sequence[MessageTrace | None], end_ns: int) -> None:
        """End the spans of messages that are stored. Hot path.

        A span comes in pieces, most of which it shares with many others; the sink joins all of them at once.
        """
        if self._sink is None:
            return
        pieces: list[bytes] = []
        others: list[MessageTrace] = []
        add, frames, sizes, parented = pieces.extend, wire.FRAMES, wire.SIZES.young, wire.PARENT
        received_ns = begun_ns = -1
        remote = root = sent = b""
        for trace in traces:
            if trace is None:
                continue
            if type(trace) is not MessageTrace:
                others.append(trace)
                continue
            if trace.received_ns != received_ns:  # all of one read have the same
                received_ns = trace.received_ns
                lived = wire.times(received_ns, end_ns)
                remote, root = lived + wire.REMOTE, lived + wire.LOCAL
            if trace.begun_ns != begun_ns:
                begun_ns = trace.begun_ns
                sent = wire.times(begun_ns, end_ns) + wire.LOCAL
            fixed, trace_id, own, parent = trace.spans, trace.trace_id, trace.process_id, trace.parent_id
            both = sizes.get(trace.size) or wire.size_attribute(trace.size)
            if trace.tracestate:
                both += text(3, trace.tracestate)
            rest = both + trace.extra if trace.extra else both
            length = fixed.process_size + len(rest) - (0 if parent else wire.PARENT_SIZE)
            add((
                frames[length] if length < SMALL else wire.frame(length), fixed.process_shared, own, fixed.process_own,
                trace_id, parented if parent else b"", parent, remote if parent else root, rest,
            ))  # fmt: skip
            length = fixed.send_size + len(both)
            add((
                frames[length] if length < SMALL else wire.frame(length), fixed.send_shared, trace.send_id,
                fixed.send_own, trace_id, parented, own, sent, both,
            ))  # fmt: skip
        if pieces:
            self._sink.add(pieces, _PIECES)
        if others:
            self._stored_otherwise(self._sink, others, end_ns)

    @staticmethod
    def _stored_otherwise(sink: SpanSink, traces: Sequence[MessageTrace], end_ns: int) -> None:
        """Those that were in the spool, and those whose sampler was asked."""
        spooled = [trace for trace in traces if type(trace) is SpooledTrace]
        if spooled:
            sink.add(stored(spooled, end_ns), _PIECES)
        if len(spooled) < len(traces):
            sink.add([span for trace in traces if type(trace) is not SpooledTrace for span in trace.finish(end_ns)])

    def spooled(self, traces: Sequence[MessageTrace | None], end_ns: int) -> None:
        """End the process spans of messages that the spool has: what comes later may be told by another process."""
        if self._sink is not None:
            spans = [span for trace in traces if trace is not None and (span := trace.processed(end_ns))]
            if spans:
                self._sink.add(spans)

    def dropped(self, trace: MessageTrace | None, end_ns: int, reason: str) -> None:
        """End a message's spans with an error: it will not be sent. ``reason`` becomes ``error.type``.

        Its ``send`` span appears only when sending was tried.
        """
        if self._sink is None or trace is None:
            return
        spans = trace.finish(end_ns, reason[: self._value_limit])
        if spans:
            self._sink.add(spans)

    def _request_span(  # noqa: PLR0917
        self, hop: Hop, linked: list[MessageTrace], count: int, start_ns: int, end_ns: int, error: str | None
    ) -> bytes:
        """A child of the message's span when it is alone, else a root of its own, since it belongs to all of them."""
        own = ids.span_id()
        only = linked[0] if count == 1 else None
        parts = [self._requests.young.get((hop.system, hop.operation, hop.destination)) or self._request_fields(hop)]
        if only is not None:
            parts.append(wire.identity(only.trace_id, own, only.send_id, start_ns, end_ns))
            if only.tracestate:
                parts.append(text(3, only.tracestate))
        else:
            parts.append(wire.identity(ids.trace_id(), own, b"", start_ns, end_ns))
        parts.append(self._counts.get(count) or self._count_attribute(count))
        parts += self._links(linked)
        parts.append(wire.STATUS_UNSET if error is None else wire.status(error))
        return wire.framed(b"".join(parts))

    def _count_attribute(self, count: int) -> bytes:
        encoded = wire.attribute(9, "messaging.batch.message_count", count)
        if len(self._counts) < _COUNTS:
            self._counts[count] = encoded
        return encoded

    def _links(self, linked: list[MessageTrace]) -> list[bytes]:
        over = len(linked) - self._max_links if self._max_links is not None else 0
        if over <= 0:
            pack = wire.LOCAL_LINK
            return [pack(b"j\x21\n\x10", one.trace_id, wire.SPAN, one.send_id, b"5\0\1\0\0") for one in linked]
        # As in the SDK, the last ones stay: dropped_links_count (14) says how many are missing.
        return [*self._links(linked[over:]), b"p" + varint(over)]

    def _request_fields(self, hop: Hop) -> bytes:
        key = (hop.system, hop.operation, hop.destination)
        encoded = self._requests.get(key)
        if encoded is None:
            encoded = self._fixed(hop, SpanKind.CLIENT) + wire.LOCAL
            self._requests.put(key, encoded)
        return encoded

    def _parts(self, hop: Hop, kind: SpanKind) -> tuple[bytes, bytes]:
        """The fixed fields of a hop's spans: those that it has in common with other hops, and its own.

        Each ends with the tag of the id that follows it, of the span and of the trace.
        """
        attributes = cut(hop.attributes(), self._value_limit)
        own = {name: attributes.pop(name) for name in (DESTINATION, *hop.extra)}
        shared = wire.fixed_fields(hop.name, kind.value, attributes) + wire.SPAN
        encoded = wire.attributes(9, own) + wire.TRACE
        # Of MQTT topics there are many, each its own; of RocketMQ's there are few.
        return self._one(shared), encoded if hop.template is not None else self._one(encoded)

    def _one(self, encoded: bytes) -> bytes:
        """The one object that stands for these bytes in all recipes."""
        known = self._shared.get(encoded)
        if known is None:
            self._shared.put(encoded, encoded)
        return known or encoded

    def _fixed(self, hop: Hop, kind: SpanKind) -> bytes:
        return wire.fixed_fields(hop.name, kind.value, cut(hop.attributes(), self._value_limit))


def _limits_from_environment() -> SpanLimits:
    from opentelemetry.sdk.trace import SpanLimits  # noqa: PLC0415 - see above

    try:
        return SpanLimits()
    except ValueError as error:  # its text names the variable
        raise TelemetryConfigError(str(error)) from error
