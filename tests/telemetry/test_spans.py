"""Our spans are the spans that the OpenTelemetry SDK and its OTLP encoder would have sent, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState

from spanbridge.core.message import Address, Publish
from spanbridge.core.policy import ContextPolicy
from spanbridge_context import TraceContext, parse_traceparent

from .otlp import SOURCE, TARGET, Collected, Reference, comparable, tracer

DEVICE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "vendor=a:b,other=1", "user=1")
ADDRESS = Address("orders", tag="t", keys=("k1", "k2"), group="device-7", delivery_timestamp_ms=1795430589684)
MESSAGE = Publish("plant/1/\u00fc", b"x" * 300, received_ns=1_795_430_589_000_000_001)
END = 1_795_430_590_000_000_000

PROCESS = {
    "messaging.system": "mqtt",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.template": "plant/+/#",
    "messaging.destination.name": "plant/1/\u00fc",
    "messaging.message.body.size": 300,
    "messaging.client.id": "gw-1",
    "server.address": "broker.example",
    "server.port": 1883,
}
BATCH = {
    "messaging.system": "rocketmq",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.name": "orders",
    "messaging.client.id": "gw-1@2",
    "messaging.rocketmq.namespace": "ns",
    "server.address": "rmq.example",
    "server.port": 8081,
}
SEND = {
    **BATCH,
    "messaging.message.body.size": 300,
    "messaging.rocketmq.message.tag": "t",
    "messaging.rocketmq.message.keys": ("k1", "k2"),
    "messaging.rocketmq.message.group": "device-7",
    "messaging.rocketmq.message.delivery_timestamp": 1795430589684,
}


def remote(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(context.flags),
        trace_state=TraceState.from_header([context.tracestate]),
    )


def under(parent: SpanContext | None) -> Context:
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())


def with_sdk(
    sink: Collected,
    *,
    sampler: Sampler = DEFAULT_ON,
    parent: TraceContext | None = None,
    linked: TraceContext | None = None,
    limits: SpanLimits | None = None,
) -> Any:
    """The same three spans of one message, made by the SDK."""
    sdk = Reference(sampler, limits)
    ours_process, ours_send = sink.named("process"), next(s for s in sink.spans() if s.kind == 4)
    ours_batch = next(s for s in sink.spans() if s.kind == 3)
    process = sdk.start(
        ours_process,
        "process plant/+/#",
        context=under(remote(parent) if parent else None),
        kind=SpanKind.CONSUMER,
        attributes=PROCESS,
        links=[Link(remote(linked))] if linked else None,
    )
    send = sdk.start(
        ours_send,
        "send orders",
        context=under(process.get_span_context()),
        kind=SpanKind.PRODUCER,
        attributes=SEND,
    )
    batch = sdk.start(
        ours_batch,
        "send orders",
        context=under(send.get_span_context()),
        kind=SpanKind.CLIENT,
        attributes={**BATCH, "messaging.batch.message_count": 1},
        links=[Link(send.get_span_context())],
    )
    batch.end(END)
    send.end(END)
    process.end(END)
    return sdk.request()


class Tagging(Sampler):
    """A sampler of a user's own: has to be asked, adds an attribute and changes the trace state."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> SamplingResult:
        attributes = {**args[1], "sampler.saw": name}
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, TraceState([("tagged", "yes")]))

    def get_description(self) -> str:
        return "Tagging"


class Asked(Sampler):
    """As ``parentbased_always_on``, but not known to be."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return DEFAULT_ON.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        return "Asked"


class Failing(Asked):
    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "sampler",
    [DEFAULT_ON, ALWAYS_ON, TraceIdRatioBased(1.0), Asked(), Tagging()],
    ids=lambda sampler: sampler.get_description(),
)
@pytest.mark.parametrize(
    ("policy", "trust", "context"),
    [
        (ContextPolicy.CONTINUE, True, DEVICE),
        (ContextPolicy.CONTINUE, True, DEVICE.replace(tracestate="")),
        (ContextPolicy.CONTINUE, True, None),
        (ContextPolicy.CONTINUE, False, DEVICE),
        (ContextPolicy.LINK, True, DEVICE),
        (ContextPolicy.LINK, False, DEVICE),
        (ContextPolicy.PASSTHROUGH, True, DEVICE),
        (ContextPolicy.PASSTHROUGH, True, None),
    ],
)
def test_equals_the_sdk(sampler: Sampler, policy: ContextPolicy, trust: bool, context: TraceContext | None) -> None:
    ours, sink = tracer(sampler)
    route = ours.route(filter="plant/+/#", topic="orders", policy=policy, trust=trust)
    message = route.begin(MESSAGE, context, ADDRESS)
    ours.sent([message], END - 1000, END, "orders")
    ours.settled([message], END)

    follows = trust and policy is not ContextPolicy.LINK
    links = trust and policy is ContextPolicy.LINK
    theirs = with_sdk(sink, sampler=sampler, parent=context if follows else None, linked=context if links else None)
    assert len(sink.spans()) == 3
    # A sampler of the user's own is not asked about the gateway's batch span, which follows its messages.
    left, right = comparable(sink.request()), comparable(theirs)
    if isinstance(sampler, Tagging):
        left, right = without_batch(left), without_batch(right)
    assert left == right


@pytest.mark.parametrize("sampler", [DEFAULT_ON, Asked()], ids=lambda sampler: sampler.get_description())
def test_a_trace_state_of_level_2_travels_on(sampler: Sampler) -> None:
    device = DEVICE.replace(tracestate="1a=b,c=d")  # the API would drop it: Level 1 keys begin with a letter
    ours, sink = tracer(sampler)
    route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
    message = route.begin(MESSAGE, device)
    ours.sent([message], END - 9, END, "t")
    ours.settled([message], END)
    assert message.tracestate == "1a=b,c=d"
    assert {span.trace_state for span in sink.spans()} == {"1a=b,c=d"}


def without_batch(found: Any) -> Any:
    spans = found["resource_spans"][0]["scope_spans"][0]["spans"]
    spans[:] = [span for span in spans if span["kind"] != "SPAN_KIND_CLIENT"]
    return found


@pytest.mark.parametrize("sampler", [DEFAULT_ON, Asked()], ids=lambda sampler: sampler.get_description())
@pytest.mark.parametrize("length", [4, 1])
def test_limits_equal_the_sdk(sampler: Sampler, length: int) -> None:
    limits = SpanLimits(max_span_attribute_length=length)
    ours, sink = tracer(sampler, limits=limits)
    message = ours.route(filter="plant/+/#", topic="orders", policy=ContextPolicy.CONTINUE, trust=True).begin(
        MESSAGE, DEVICE, ADDRESS
    )
    ours.sent([message], END - 1000, END, "orders")
    ours.settled([message], END)
    assert comparable(sink.request()) == comparable(with_sdk(sink, parent=DEVICE, limits=limits))


def test_limits_hold_for_the_error_too() -> None:
    ours, sink = tracer(limits=SpanLimits(max_span_attribute_length=4))
    message = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True).begin(MESSAGE, DEVICE)
    ours.sent([message], END - 9, END, "t", "throttled")
    ours.dropped(message, END, "expired")
    errors = [a.value.string_value for span in sink.spans() for a in span.attributes if a.key == "error.type"]
    assert errors == ["thro", "expi", "expi"]


@pytest.mark.parametrize("sampler", [DEFAULT_ON, Asked()], ids=lambda sampler: sampler.get_description())
def test_addresses_that_differ_under_one_mqtt_topic_equal_the_sdk(sampler: Sampler) -> None:
    ours, sink = tracer(sampler)
    route = ours.route(filter="plant/+/#", topic="orders", policy=ContextPolicy.CONTINUE, trust=True, per_message=True)
    for address in (Address("orders", group="first"), ADDRESS):
        sink.framed.clear()
        message = route.begin(MESSAGE, DEVICE, address)
        ours.sent([message], END - 1000, END, "orders")
        ours.settled([message], END)
    assert comparable(sink.request()) == comparable(with_sdk(sink, parent=DEVICE))


@pytest.mark.parametrize(
    ("policy", "travels"), [(ContextPolicy.CONTINUE, DEVICE.traceparent), (ContextPolicy.LINK, "")]
)
def test_a_sampler_that_fails_stops_no_message(
    policy: ContextPolicy, travels: str, caplog: pytest.LogCaptureFixture
) -> None:
    ours, sink = tracer(Failing())
    route = ours.route(filter="f", topic="t", policy=policy, trust=True)
    messages = [route.begin(MESSAGE, DEVICE) for _ in range(3)]
    ours.sent(messages, END - 9, END, "t")
    ours.settled(messages, END)
    assert [message.traceparent for message in messages] == [travels] * 3
    assert sink.framed == []
    assert caplog.messages == ["the sampler Failing failed at `process f`: messages go on without spans when it does"]


def test_a_batch_links_every_recorded_message_and_equals_the_sdk() -> None:
    ours, sink = tracer(limits=SpanLimits(max_links=3))
    route = ours.route(filter="plant/+/#", topic="orders", policy=ContextPolicy.CONTINUE, trust=True)
    unsampled = DEVICE.replace(flags=0)
    messages = [route.begin(MESSAGE, context) for context in (DEVICE, unsampled, None, DEVICE, DEVICE)]
    ours.sent(messages, END - 5, END, "orders", "throttled")

    (batch,) = sink.spans()
    sdk = Reference(limits=SpanLimits(max_links=3))
    contexts = [parse_traceparent(m.traceparent) for m in messages if m.recorded]
    assert len(contexts) == 4
    span = sdk.start(
        batch,
        "send orders",
        context=Context(),
        kind=SpanKind.CLIENT,
        attributes={**BATCH, "messaging.batch.message_count": 5, "error.type": "throttled"},
        links=[
            Link(SpanContext(int(c.trace_id, 16), int(c.span_id, 16), False, TraceFlags(c.flags))) for c in contexts
        ],
    )
    span.set_status(Status(StatusCode.ERROR))
    span.end(END)
    assert comparable(sink.request()) == comparable(sdk.request())


def test_a_dropped_message_ends_with_an_error_and_equals_the_sdk() -> None:
    ours, sink = tracer()
    route = ours.route(filter="plant/+/#", topic="orders", policy=ContextPolicy.CONTINUE, trust=True)
    message = route.begin(MESSAGE, DEVICE, ADDRESS)
    ours.sent([message], END - 5, END - 1, "orders", "rejected")
    ours.dropped(message, END, "rejected")

    sink.framed = [f for f, span in zip(sink.framed, sink.spans(), strict=True) if span.kind != 3]
    sdk = Reference()
    process = sdk.start(
        sink.named("process"),
        "process plant/+/#",
        context=under(remote(DEVICE)),
        kind=SpanKind.CONSUMER,
        attributes={**PROCESS, "error.type": "rejected"},
    )
    send = sdk.start(
        sink.named("send"),
        "send orders",
        context=under(process.get_span_context()),
        kind=SpanKind.PRODUCER,
        attributes={**SEND, "error.type": "rejected"},
    )
    for span in (send, process):
        span.set_status(Status(StatusCode.ERROR))
        span.end(END)
    assert comparable(sink.request()) == comparable(sdk.request())


def test_a_message_dropped_before_sending_has_no_send_span() -> None:
    ours, sink = tracer()
    route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
    ours.dropped(route.begin(MESSAGE, DEVICE), END, "expired")
    (span,) = sink.spans()
    assert (span.name, span.status.code) == ("process f", 2)


def test_attempts_that_fail_first_end_the_send_span_well_once() -> None:
    ours, sink = tracer()
    route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
    message = route.begin(MESSAGE, DEVICE)
    ours.sent([message], END - 9, END - 5, "t", "unavailable")
    ours.sent([message], END - 4, END, "t")
    ours.settled([message], END)
    kinds = [(span.kind, span.status.code) for span in sink.spans()]
    assert kinds == [(3, 2), (3, 0), (4, 0), (5, 0)]


class TestWhatTravelsOn:
    def test_continue_sends_the_send_span(self) -> None:
        ours, sink = tracer()
        route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
        message = route.begin(MESSAGE, DEVICE)
        ours.sent([message], END, END, "t")
        send = next(span for span in sink.spans() if span.kind == 4)
        assert message.traceparent == f"00-{DEVICE.trace_id}-{send.span_id.hex()}-01"
        assert message.tracestate == DEVICE.tracestate

    def test_the_random_flag_of_the_device_is_kept_and_of_new_traces_set(self) -> None:
        ours, _ = tracer()
        route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
        assert route.begin(MESSAGE, DEVICE.replace(flags=3)).traceparent.endswith("-03")
        assert route.begin(MESSAGE, DEVICE.replace(flags=2)).traceparent.endswith("-02")
        assert route.begin(MESSAGE, DEVICE.replace(flags=0)).traceparent.endswith("-00")
        assert route.begin(MESSAGE, None).traceparent.endswith("-03")

    @pytest.mark.parametrize("flags", [0, 1])
    def test_passthrough_sends_the_device_s_own(self, flags: int) -> None:
        ours, _ = tracer()
        route = ours.route(filter="f", topic="t", policy=ContextPolicy.PASSTHROUGH, trust=True)
        device = DEVICE.replace(flags=flags)
        message = route.begin(MESSAGE, device)
        assert (message.traceparent, message.tracestate) == (device.traceparent, device.tracestate)
        assert message.recorded == bool(flags)

    @pytest.mark.parametrize(("policy", "trust"), [(ContextPolicy.LINK, True), (ContextPolicy.CONTINUE, False)])
    def test_new_traces_share_nothing_with_the_device(self, policy: ContextPolicy, trust: bool) -> None:
        ours, _ = tracer()
        message = ours.route(filter="f", topic="t", policy=policy, trust=trust).begin(MESSAGE, DEVICE)
        assert parse_traceparent(message.traceparent).trace_id != DEVICE.trace_id
        assert message.tracestate == ""

    def test_without_tracing_the_device_s_context_travels_and_none_is_made_up(self) -> None:
        from spanbridge.telemetry.tracer import Tracer

        ours = Tracer(None)
        route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
        message = route.begin(MESSAGE, DEVICE)
        assert (message.traceparent, message.tracestate) == (DEVICE.traceparent, DEVICE.tracestate)
        assert route.begin(MESSAGE, None).traceparent == ""
        ours.sent([message], END, END, "t")
        ours.settled([message], END)
        ours.dropped(message, END, "expired")


SAMPLED, UNSAMPLED = DEVICE, DEVICE.replace(flags=0)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (ALWAYS_ON, (True, True, True)),
        (ALWAYS_OFF, (False, False, False)),
        (DEFAULT_ON, (True, False, True)),
        (DEFAULT_OFF, (True, False, False)),
        (TraceIdRatioBased(0.0), (False, False, False)),
        (ParentBasedTraceIdRatio(0.0), (True, False, False)),
        (ParentBasedTraceIdRatio(1.0), (True, False, True)),
        (ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON), (True, True, True)),
        (ParentBased(ALWAYS_ON, local_parent_sampled=ALWAYS_OFF), (True, False, True)),
    ],
    ids=lambda value: value.get_description() if isinstance(value, Sampler) else "",
)
def test_samplers_decide_as_in_the_sdk(sampler: Sampler, expected: tuple[bool, bool, bool]) -> None:
    ours, _ = tracer(sampler)
    route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
    decided = tuple(route.begin(MESSAGE, context).recorded for context in (SAMPLED, UNSAMPLED, None))
    assert decided == expected


@pytest.mark.parametrize("low", ["0000000000000000", "3fffffffffffffff", "4000000000000000", "ffffffffffffffff"])
@pytest.mark.parametrize("sampler", [TraceIdRatioBased(0.25), ParentBased(ALWAYS_ON, TraceIdRatioBased(0.25))])
def test_ratios_cut_where_the_sdk_cuts(sampler: Sampler, low: str) -> None:
    ours, _ = tracer(sampler)
    context = DEVICE.replace(trace_id="0af7651916cd43dd" + low)
    theirs = sampler.should_sample(under(remote(context)), int(context.trace_id, 16), "x")
    route = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
    assert route.begin(MESSAGE, context).recorded == theirs.decision.is_sampled()


@pytest.mark.parametrize("policy", [ContextPolicy.CONTINUE, ContextPolicy.LINK])
@pytest.mark.parametrize(
    "sampler",
    [TraceIdRatioBased(0.25), ParentBasedTraceIdRatio(0.25)],
    ids=lambda sampler: sampler.get_description(),
)
def test_new_traces_are_sampled_at_the_ratio_as_the_sdk_would(sampler: Sampler, policy: ContextPolicy) -> None:
    ours, _ = tracer(sampler)
    route = ours.route(filter="f", topic="t", policy=policy, trust=True)
    decided = set()
    for _ in range(300):
        message = route.begin(MESSAGE, DEVICE if policy is ContextPolicy.LINK else None)
        made = parse_traceparent(message.traceparent)
        theirs = sampler.should_sample(Context(), int(made.trace_id, 16), "x").decision.is_sampled()
        assert message.recorded == made.sampled == theirs
        decided.add(theirs)
    assert decided == {True, False}


def test_routes_are_prepared_once() -> None:
    ours, _ = tracer()
    first = ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True)
    assert ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True) is first
    assert ours.route(filter="f", topic="u", policy=ContextPolicy.CONTINUE, trust=True) is not first
    assert ours.route(filter="f", topic="t", policy=ContextPolicy.CONTINUE, trust=True, source=TARGET) is not first
    assert SOURCE != TARGET
