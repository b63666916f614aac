"""Traces of one route's messages under samplers that have to be asked."""

from __future__ import annotations

import logging
from dataclasses import replace
from struct import Struct
from time import time_ns
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.span import TraceState

from spanbridge.core.message import Address, Publish
from spanbridge.telemetry import ids, sampling, trace, wire
from spanbridge.telemetry.route import DESTINATION, SIZE, RouteSpans, SilentRoute, address_attributes
from spanbridge.telemetry.sampling import Verdict
from spanbridge.telemetry.trace import MessageTrace, RecordedTrace

if TYPE_CHECKING:
    from spanbridge_context import TraceContext

_IDENTITY = Struct("<2s16s2s8sBQ").pack  # Span.trace_id (1), .span_id (2), .start_time_unix_nano (7)
_RANDOM = 2
_FLAGS = ("00", "01", "02", "03")


class AskingRoute:
    """Asks the sampler for each span, as the SDK's ``Tracer.start_span`` would."""

    def __init__(self, spans: RouteSpans, sampler: Sampler, *, follow: bool, link: bool, passthrough: bool) -> None:
        self._spans = spans
        self._sampler = sampler
        self._follow = follow
        self._link = link
        self._passthrough = passthrough
        self._name = spans.process_name
        self._silent = SilentRoute(trust=follow)
        self._told = False

    def begin(self, publish: Publish, context: TraceContext | None, address: Address | None = None) -> MessageTrace:
        """See :class:`~spanbridge.telemetry.route.RouteTracer`."""
        try:
            return self._begin(publish, context, address)
        except Exception:  # a sampler of somebody else's must not stop a message
            if not self._told:
                self._told = True
                logging.getLogger(__name__).exception(
                    "the sampler %s failed at `%s`: messages go on without spans when it does",
                    type(self._sampler).__name__,
                    self._name,
                )
            return self._silent.begin(publish, context)

    def _begin(self, publish: Publish, context: TraceContext | None, address: Address | None) -> MessageTrace:
        remote = None if context is None else sampling.remote_context(context)
        parent = remote if self._follow else None
        links = (Link(remote),) if remote is not None and self._link else ()
        trace_id = ids.trace_id() if parent is None else parent.trace_id.to_bytes(16)
        process_as = (self._spans.process_name, SpanKind.CONSUMER)
        send_as = (self._spans.send_name, SpanKind.PRODUCER)
        size = {SIZE: len(publish.payload)}
        process = sampling.ask(
            self._sampler,
            parent,
            trace_id,
            process_as,
            self._spans.process_attributes | {DESTINATION: publish.topic} | size,
            links,
        )
        here = _child(parent, trace_id, process)
        send = sampling.ask(
            self._sampler,
            here,
            trace_id,
            send_as,
            self._spans.send_attributes | address_attributes(address) | size,
        )
        there = _child(here, trace_id, send)
        if context is not None and parent is not None:
            # The API's TraceState knows Level 1: it loses states with keys of Level 2, which nobody asked it to change.
            seen = sampling.header(parent.trace_state)
            process, send = (_unchanged(verdict, seen, context.tracestate) for verdict in (process, send))
        traceparent = f"00-{trace_id.hex()}-{there.span_id:016x}-{_FLAGS[there.trace_flags]}"
        tracestate = send.tracestate
        if self._passthrough and context is not None and parent is not None:
            traceparent, tracestate = context.traceparent, context.tracestate
        if not (process.sampled or send.sampled):
            return MessageTrace(traceparent, tracestate)
        process_span = _encode(self._spans, process_as, process, here, parent, publish.received_ns or time_ns(), links)
        send_span = _encode(self._spans, send_as, send, there, here, time_ns(), ())
        return RecordedTrace(traceparent, tracestate, process_span, send_span, trace_id, there.span_id.to_bytes(8))


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


def _encode(  # noqa: PLR0917
    spans: RouteSpans,
    named: tuple[str, SpanKind],
    verdict: Verdict,
    own: SpanContext,
    parent: SpanContext | None,
    start_ns: int,
    links: tuple[Link, ...],
) -> bytes:
    if not verdict.sampled:
        return b""
    parts = [
        spans.encode(*named, dict(verdict.attributes)),
        _IDENTITY(b"\n\x10", own.trace_id.to_bytes(16), b"\x12\x08", own.span_id.to_bytes(8), 0x39, start_ns),
        trace.REMOTE if parent is not None and parent.is_remote else trace.LOCAL,
        wire.text(3, verdict.tracestate),
    ]
    if parent is not None:
        parts.append(b'"\x08' + parent.span_id.to_bytes(8))
    parts += [
        trace.link(one.context.trace_id.to_bytes(16), one.context.span_id.to_bytes(8), remote=True) for one in links
    ]
    return trace.head(b"".join(parts))
