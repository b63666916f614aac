"""Traces of one recipe's messages under samplers that have to be asked."""

from __future__ import annotations

import logging
from dataclasses import replace
from struct import Struct
from time import time_ns
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.span import TraceState

from spanbridge.core.protobuf import text
from spanbridge.telemetry.spans import ids, sampling, wire
from spanbridge.telemetry.spans.hop import Hop, cut
from spanbridge.telemetry.spans.recipe import Begun, Following, SilentSpans
from spanbridge.telemetry.spans.sampling import Verdict
from spanbridge.telemetry.spans.spooled import resumed
from spanbridge.telemetry.spans.trace import AskedTrace

if TYPE_CHECKING:
    from spanbridge.core.spooled import TraceIds
    from spanbridge_context import TraceContext

_IDENTITY = Struct("<2s16s2s8sBQ").pack  # Span.trace_id (1), .span_id (2), .start_time_unix_nano (7)
_RANDOM = 2
_FLAGS = ("00", "01", "02", "03")


class AskingSpans:
    """Asks the sampler for each span, as the SDK's ``Tracer.start_span`` would."""

    def __init__(
        self, process: Hop, send: Hop, sampler: Sampler, following: Following, value_limit: int | None
    ) -> None:
        self._process = process
        self._send = send
        self._sampler = sampler
        self._following = following
        self._value_limit = value_limit
        self._silent = SilentSpans(trust=following.follow)
        self._told = False

    def begin(self, context: TraceContext | None, received_ns: int, size: int, begun_ns: int = 0) -> Begun:
        """See :class:`~spanbridge.telemetry.spans.recipe.RecipeSpans`."""
        try:
            return self._begin(context, received_ns, size, begun_ns)
        except Exception:  # a sampler of somebody else's must not stop a message
            if not self._told:
                self._told = True
                logging.getLogger(__name__).exception(
                    "the sampler %s failed at `%s`: messages go on without spans when it does",
                    type(self._sampler).__name__,
                    self._process.name,
                )
            return self._silent.begin(context, received_ns, size)

    def resume(
        self, context: TraceContext | None, kept: TraceIds | None, spooled_ns: int, size: int, begun_ns: int = 0
    ) -> Begun:
        """See :class:`~spanbridge.telemetry.spans.recipe.RecipeSpans`. The sampler was asked before."""
        attributes = cut(self._send.attributes(), self._value_limit)
        send = wire.fixed_fields(self._send.name, SpanKind.PRODUCER.value, attributes) + wire.LOCAL + wire.TRACE
        return resumed(send, self._following, context, kept, spooled_ns, size, begun_ns)

    def _begin(self, context: TraceContext | None, received_ns: int, size: int, begun_ns: int) -> Begun:
        following = self._following
        remote = None if context is None else sampling.remote_context(context)
        parent = remote if following.follow else None
        links = (Link(remote),) if remote is not None and following.link else ()
        trace_id = ids.trace_id() if parent is None else parent.trace_id.to_bytes(16)
        process = self._ask(self._process, SpanKind.CONSUMER, parent, trace_id, size, links)
        here = _child(parent, trace_id, process)
        send = self._ask(self._send, SpanKind.PRODUCER, here, trace_id, size, ())
        there = _child(here, trace_id, send)
        if context is not None and parent is not None:
            # The API's TraceState knows Level 1: it loses states with keys of Level 2, which nobody asked it to change.
            seen = sampling.header(parent.trace_state)
            process, send = (_unchanged(verdict, seen, context.tracestate) for verdict in (process, send))
        traceparent = f"00-{trace_id.hex()}-{there.span_id:016x}-{_FLAGS[there.trace_flags]}"
        tracestate = send.tracestate
        if following.passthrough and context is not None and parent is not None:
            traceparent, tracestate = context.traceparent, context.tracestate
        if not (process.sampled or send.sampled):
            return traceparent, tracestate, None
        begun = begun_ns or time_ns()
        trace = AskedTrace(
            self._encode(self._process, SpanKind.CONSUMER, process, here, parent, received_ns or begun, links),
            self._encode(self._send, SpanKind.PRODUCER, send, there, here, begun, ()),
            trace_id,
            here.span_id.to_bytes(8),
            there.span_id.to_bytes(8),
            tracestate,
        )
        return traceparent, tracestate, trace

    def _ask(  # noqa: PLR0917
        self,
        hop: Hop,
        kind: SpanKind,
        parent: SpanContext | None,
        trace_id: bytes,
        size: int,
        links: tuple[Link, ...],
    ) -> Verdict:
        attributes = hop.attributes() | {wire.SIZE: size}
        return sampling.ask(self._sampler, parent, trace_id, (hop.name, kind), attributes, links)

    def _encode(  # noqa: PLR0917
        self,
        hop: Hop,
        kind: SpanKind,
        verdict: Verdict,
        own: SpanContext,
        parent: SpanContext | None,
        start_ns: int,
        links: tuple[Link, ...],
    ) -> bytes:
        if not verdict.sampled:
            return b""
        parts = [
            wire.fixed_fields(hop.name, kind.value, cut(dict(verdict.attributes), self._value_limit)),
            _IDENTITY(b"\n\x10", own.trace_id.to_bytes(16), b"\x12\x08", own.span_id.to_bytes(8), 0x39, start_ns),
            wire.REMOTE if parent is not None and parent.is_remote else wire.LOCAL,
            text(3, verdict.tracestate),
        ]
        if parent is not None:
            parts.append(b'"\x08' + parent.span_id.to_bytes(8))
        parts += [
            self._following.link_field(one.context.trace_id.to_bytes(16), one.context.span_id.to_bytes(8))
            for one in links
        ]
        return b"".join(parts)


def _unchanged(verdict: Verdict, seen: str, sent: str) -> Verdict:
    """The verdict with the device's trace state as it was ``sent``, if the sampler left it as it had ``seen`` it."""
    return replace(verdict, tracestate=sent) if verdict.tracestate == seen else verdict


def _child(parent: SpanContext | None, trace_id: bytes, verdict: Verdict) -> SpanContext:
    random = _RANDOM if parent is None else parent.trace_flags & _RANDOM
    return SpanContext(
        int.from_bytes(trace_id),
        int.from_bytes(ids.span_id()),
        is_remote=False,
        trace_flags=TraceFlags(random | verdict.sampled),
        trace_state=TraceState.from_header([verdict.tracestate]) if verdict.tracestate else None,
    )
