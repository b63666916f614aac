"""The spans of a message that was in the spool are those that the SDK would have sent, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from spanbridge.core.policy import ContextPolicy
from spanbridge.core.spooled import TraceIds
from spanbridge.telemetry import MessageTrace, Tracer
from spanbridge_context import TraceContext

from .otlp import RECEIVED, SENT, Collected, Reference, comparable, tracer
from .test_spans import ARRIVED, DEVICE, END, SEND, under

KEPT = TraceIds(bytes.fromhex(DEVICE.trace_id), b"process!", b"sending!")
SIZE = {"messaging.message.body.size": 300}


def resumed(ours: Tracer, context: TraceContext | None, policy: ContextPolicy) -> tuple[str, MessageTrace]:
    spans = ours.spans(RECEIVED, SENT, policy=policy, trust=True)
    traceparent, _, trace = spans.resume(context, KEPT, ARRIVED, 300)
    assert trace is not None
    return traceparent, trace


def of_the_sdk(sink: Collected, state: str, *, error: str | None, sent: bool) -> Any:
    """The same spans, made by the SDK under the process span that an earlier process has ended."""
    sdk = Reference(DEFAULT_ON)
    process = SpanContext(
        int.from_bytes(KEPT.trace_id),
        int.from_bytes(KEPT.process_id),
        is_remote=False,
        trace_flags=TraceFlags(1),
        trace_state=TraceState.from_header([state] if state else []),
    )
    wrong = {} if error is None else {"error.type": error}
    spool = sdk.start(
        sink.named("spool"),
        "spool",
        context=under(process),
        kind=SpanKind.INTERNAL,
        attributes=SIZE | ({} if sent else wrong),
    )
    ends = [(spool, sink.named("spool").end_time_unix_nano, not sent)]
    if sent:
        send = sdk.start(
            sink.named("send"), "send orders", context=under(process), kind=SpanKind.PRODUCER, attributes=SEND | wrong
        )
        ends.append((send, END, True))
    for span, end, fails in ends:
        if error is not None and fails:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)
    return sdk.request()


@pytest.mark.parametrize("policy", list(ContextPolicy))
@pytest.mark.parametrize("context", [None, DEVICE, DEVICE.replace(tracestate="")])
@pytest.mark.parametrize("sampler", [DEFAULT_ON, TraceIdRatioBased(1.0)], ids=lambda one: one.get_description())
def test_equals_the_sdk(sampler: Any, context: TraceContext | None, policy: ContextPolicy) -> None:
    ours, sink = tracer(sampler)
    traceparent, trace = resumed(ours, context, policy)
    ours.stored([trace], END)
    state = "" if context is None or policy is ContextPolicy.LINK else context.tracestate
    assert comparable(sink.request()) == comparable(of_the_sdk(sink, state, error=None, sent=True))
    spool, send = sink.named("spool"), sink.named("send")
    assert spool.start_time_unix_nano == ARRIVED
    assert spool.end_time_unix_nano == send.start_time_unix_nano
    if policy is not ContextPolicy.PASSTHROUGH or context is None:
        assert traceparent.split("-")[1:3] == [send.trace_id.hex(), send.span_id.hex()]


@pytest.mark.parametrize("tried", [True, False])
@pytest.mark.parametrize("context", [None, DEVICE])
def test_one_that_is_dropped_equals_the_sdk(context: TraceContext | None, tried: bool) -> None:
    ours, sink = tracer(DEFAULT_ON)
    _, trace = resumed(ours, context, ContextPolicy.CONTINUE)
    trace.tried = tried
    ours.dropped(trace, END, "expired")
    state = "" if context is None else context.tracestate
    assert comparable(sink.request()) == comparable(of_the_sdk(sink, state, error="expired", sent=tried))
