"""Our spans are the spans that the OpenTelemetry SDK and its OTLP encoder would have sent, field by field."""

from __future__ import annotations

import time
from dataclasses import replace
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

from spanbridge.core.policy import ContextPolicy
from spanbridge.telemetry import Hop, MessageTrace, Tracer
from spanbridge.telemetry.spans.recipe import Begun
from spanbridge_context import TraceContext, parse_traceparent

from .otlp import RECEIVED, REQUESTED, SENT, Collected, Reference, comparable, tracer

DEVICE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "vendor=a:b,other=1", "user=1")
ARRIVED = 1_795_430_589_000_000_001
END = 1_795_430_590_000_000_000
CONTINUE, LINK, PASSTHROUGH = ContextPolicy.CONTINUE, ContextPolicy.LINK, ContextPolicy.PASSTHROUGH

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


def begin(
    ours: Tracer,
    context: TraceContext | None,
    policy: ContextPolicy = CONTINUE,
    *,
    trust: bool = True,
    size: int = 300,
    process: Hop = RECEIVED,
) -> Begun:
    return ours.spans(process, SENT, policy=policy, trust=trust).begin(context, ARRIVED, size)


def trace(ours: Tracer, context: TraceContext | None, policy: ContextPolicy = CONTINUE, **options: Any) -> MessageTrace:
    found = begin(ours, context, policy, **options)[2]
    assert found is not None
    return found


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


def sdk_message(
    sdk: Reference,
    ours: tuple[Any, Any],
    *,
    parent: TraceContext | None = None,
    linked: TraceContext | None = None,
    size: int = 300,
    error: str | None = None,
) -> Any:
    """The two spans of one message, made by the SDK like ours; ends them and returns the send span."""
    common: dict[str, Any] = {"messaging.message.body.size": size}
    if error is not None:
        common["error.type"] = error
    process = sdk.start(
        ours[0],
        "process plant/+/#",
        context=under(remote(parent) if parent else None),
        kind=SpanKind.CONSUMER,
        attributes=PROCESS | common,
        links=[Link(remote(linked))] if linked else None,
    )
    send = sdk.start(
        ours[1],
        "send orders",
        context=under(process.get_span_context()),
        kind=SpanKind.PRODUCER,
        attributes=SEND | common,
    )
    for span in (send, process):
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(END)
    return send


def with_sdk(
    sink: Collected,
    *,
    sampler: Sampler = DEFAULT_ON,
    limits: SpanLimits | None = None,
    **options: Any,
) -> Any:
    """The same three spans of one message, made by the SDK."""
    sdk = Reference(sampler, limits)
    by_kind = {span.kind: span for span in sink.spans()}
    send = sdk_message(sdk, (by_kind[5], by_kind[4]), **options)
    batch = sdk.start(
        by_kind[3],
        "send orders",
        context=under(send.get_span_context()),
        kind=SpanKind.CLIENT,
        attributes={**BATCH, "messaging.batch.message_count": 1},
        links=[Link(send.get_span_context())],
    )
    batch.end(END)
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


NAMED = pytest.mark.parametrize("sampler", [DEFAULT_ON, Asked()], ids=lambda sampler: sampler.get_description())


@pytest.mark.parametrize(
    "sampler",
    [DEFAULT_ON, ALWAYS_ON, TraceIdRatioBased(1.0), Asked(), Tagging()],
    ids=lambda sampler: sampler.get_description(),
)
@pytest.mark.parametrize(
    ("policy", "trust", "context"),
    [
        (CONTINUE, True, DEVICE),
        (CONTINUE, True, DEVICE.replace(tracestate="")),
        (CONTINUE, True, None),
        (CONTINUE, False, DEVICE),
        (LINK, True, DEVICE),
        (LINK, True, None),
        (LINK, False, DEVICE),
        (PASSTHROUGH, True, DEVICE),
        (PASSTHROUGH, True, None),
        (PASSTHROUGH, False, DEVICE),
    ],
)
def test_equals_the_sdk(sampler: Sampler, policy: ContextPolicy, trust: bool, context: TraceContext | None) -> None:
    ours, sink = tracer(sampler)
    message = trace(ours, context, policy, trust=trust)
    ours.requested(REQUESTED, [message], END - 1000, END)
    ours.stored([message], END)

    follows = trust and policy is not LINK
    links = trust and policy is LINK
    theirs = with_sdk(sink, sampler=sampler, parent=context if follows else None, linked=context if links else None)
    assert len(sink.spans()) == 3
    # A sampler of the user's own is not asked about the gateway's batch span, which follows its messages.
    left, right = comparable(sink.request()), comparable(theirs)
    if isinstance(sampler, Tagging):
        left, right = without_batch(left), without_batch(right)
    assert left == right


def without_batch(found: Any) -> Any:
    spans = found["resource_spans"][0]["scope_spans"][0]["spans"]
    spans[:] = [span for span in spans if span["kind"] != "SPAN_KIND_CLIENT"]
    return found


@NAMED
def test_a_batch_of_all_kinds_of_messages_equals_the_sdk(sampler: Sampler) -> None:
    """Unsampled messages have no trace. Sizes of 0, and those whose varints take several bytes."""
    ours, sink = tracer(sampler)
    kinds: list[tuple[TraceContext | None, ContextPolicy, int]] = [
        (DEVICE, CONTINUE, 0),
        (None, CONTINUE, 1),
        (DEVICE.replace(tracestate=""), CONTINUE, 127),
        (DEVICE, LINK, 128),
        (DEVICE, PASSTHROUGH, 16_384),
        (DEVICE.replace(flags=3, tracestate=""), CONTINUE, 4 << 20),
    ]
    traces = [begin(ours, context, policy, size=size)[2] for context, policy, size in kinds]
    unsampled = begin(ours, DEVICE.replace(flags=0))[2]
    assert unsampled is None
    ours.stored([None, *traces, unsampled], END)
    spans = sink.spans()
    assert len(spans) == 2 * len(kinds)

    sdk = Reference(sampler)
    for at, (context, policy, size) in enumerate(kinds):
        links = policy is LINK
        sdk_message(
            sdk,
            (spans[2 * at], spans[2 * at + 1]),
            parent=None if links else context,
            linked=context if links else None,
            size=size,
        )
    assert comparable(sink.request()) == comparable(sdk.request())


@NAMED
def test_long_names_equal_the_sdk(sampler: Sampler) -> None:
    """Spans of more than 1 KiB have lengths that are not looked up."""
    topic = "plant/1/" + "x" * 5000
    ours, sink = tracer(sampler)
    message = trace(ours, DEVICE.replace(tracestate=""), process=replace(RECEIVED, destination=topic))
    ours.stored([message], END)
    sdk = Reference(sampler)
    process, send = sink.spans()
    attributes = PROCESS | {"messaging.destination.name": topic}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROCESS, "messaging.destination.name", attributes["messaging.destination.name"])
        sdk_message(sdk, (process, send), parent=DEVICE.replace(tracestate=""))
    assert comparable(sink.request()) == comparable(sdk.request())


@NAMED
def test_a_trace_state_of_level_2_travels_on(sampler: Sampler) -> None:
    device = DEVICE.replace(tracestate="1a=b,c=d")  # the API would drop it: Level 1 keys begin with a letter
    ours, sink = tracer(sampler)
    _, tracestate, message = begin(ours, device)
    ours.requested(REQUESTED, [message], END - 9, END)
    ours.stored([message], END)
    assert tracestate == "1a=b,c=d"
    assert {span.trace_state for span in sink.spans()} == {"1a=b,c=d"}


@NAMED
@pytest.mark.parametrize("length", [4, 1, 0])
def test_value_limits_equal_the_sdk(sampler: Sampler, length: int) -> None:
    limits = SpanLimits(max_span_attribute_length=length)
    ours, sink = tracer(sampler, limits=limits)
    message = trace(ours, DEVICE)
    ours.requested(REQUESTED, [message], END - 1000, END)
    ours.stored([message], END)
    assert comparable(sink.request()) == comparable(with_sdk(sink, parent=DEVICE, limits=limits))


@NAMED
def test_link_limits_hold_for_the_sender_s_link_and_equal_the_sdk(sampler: Sampler) -> None:
    limits = SpanLimits(max_links=0)
    ours, sink = tracer(sampler, limits=limits)
    message = trace(ours, DEVICE, LINK)
    ours.requested(REQUESTED, [message], END - 1000, END)
    ours.stored([message], END)
    assert comparable(sink.request()) == comparable(with_sdk(sink, linked=DEVICE, limits=limits))


def test_limits_hold_for_the_error_too() -> None:
    ours, sink = tracer(limits=SpanLimits(max_span_attribute_length=4))
    message = trace(ours, DEVICE)
    ours.requested(REQUESTED, [message], END - 9, END, "throttled")
    ours.dropped(message, END, "expired")
    errors = [a.value.string_value for span in sink.spans() for a in span.attributes if a.key == "error.type"]
    assert errors == ["thro", "expi", "expi"]


def test_a_message_without_a_time_of_arrival_begins_now() -> None:
    for sampler in (DEFAULT_ON, Asked()):
        for context in (DEVICE, None):
            ours, sink = tracer(sampler)
            before = time.time_ns()
            message = ours.spans(RECEIVED, SENT, policy=CONTINUE, trust=True).begin(context, 0, 1)[2]
            ours.stored([message], END)
            assert all(before <= span.start_time_unix_nano <= time.time_ns() for span in sink.spans())


def test_a_hop_without_a_template_is_named_by_its_destination() -> None:
    ours, sink = tracer()
    ours.stored([trace(ours, None, process=replace(RECEIVED, template=None))], END)
    process = sink.named("process")
    assert process.name == "process plant/1/\u00fc"
    assert "messaging.destination.template" not in {attribute.key for attribute in process.attributes}


@pytest.mark.parametrize(("policy", "travels"), [(CONTINUE, DEVICE.traceparent), (LINK, "")])
def test_a_sampler_that_fails_stops_no_message(
    policy: ContextPolicy, travels: str, caplog: pytest.LogCaptureFixture
) -> None:
    ours, sink = tracer(Failing())
    spans = ours.spans(RECEIVED, SENT, policy=policy, trust=True)
    messages = [spans.begin(DEVICE, ARRIVED, 1) for _ in range(3)]
    assert [message[0] for message in messages] == [travels] * 3
    assert [message[2] for message in messages] == [None] * 3
    assert sink.framed == []
    assert caplog.messages == [
        "the sampler Failing failed at `process plant/+/#`: messages go on without spans when it does"
    ]


@pytest.mark.parametrize("links", [128, 4, 3, 1, 0])
def test_a_batch_links_every_recorded_message_and_equals_the_sdk(links: int) -> None:
    limits = SpanLimits(max_links=links)
    ours, sink = tracer(limits=limits)
    unsampled = DEVICE.replace(flags=0)
    begun = [begin(ours, context) for context in (DEVICE, unsampled, None, DEVICE, DEVICE)]
    ours.requested(REQUESTED, [message for _, _, message in begun], END - 5, END, "throttled")

    (batch,) = sink.spans()
    sdk = Reference(limits=limits)
    contexts = [parse_traceparent(traceparent) for traceparent, _, message in begun if message is not None]
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


def test_a_request_without_a_recorded_message_has_no_span() -> None:
    ours, sink = tracer()
    ours.requested(REQUESTED, [None, None], END - 5, END)
    ours.stored([None, None], END)
    ours.dropped(None, END, "expired")
    assert sink.framed == []


def test_a_recorded_message_among_others_does_not_own_the_request() -> None:
    ours, sink = tracer()
    ours.requested(REQUESTED, [None, trace(ours, DEVICE)], END - 5, END)
    (batch,) = sink.spans()
    assert batch.parent_span_id == b""
    assert batch.trace_id.hex() != DEVICE.trace_id


def test_requests_are_named_by_their_own_destination() -> None:
    ours, sink = tracer()
    for topic in ("a", "b", "a"):
        ours.requested(replace(REQUESTED, destination=topic), [trace(ours, DEVICE)], END - 5, END)
    assert [span.name for span in sink.spans()] == ["send a", "send b", "send a"]


@NAMED
@pytest.mark.parametrize("policy", [CONTINUE, LINK])
def test_a_dropped_message_ends_with_an_error_and_equals_the_sdk(sampler: Sampler, policy: ContextPolicy) -> None:
    ours, sink = tracer(sampler)
    message = trace(ours, DEVICE, policy)
    ours.requested(REQUESTED, [message], END - 5, END - 1, "rejected")
    sink.framed.clear()
    ours.dropped(message, END, "rejected")

    sdk = Reference(sampler)
    ends: dict[str, Any] = {"linked" if policy is LINK else "parent": DEVICE}
    sdk_message(sdk, (sink.named("process"), sink.named("send")), error="rejected", **ends)
    assert comparable(sink.request()) == comparable(sdk.request())


@NAMED
def test_a_message_dropped_before_sending_has_no_send_span(sampler: Sampler) -> None:
    ours, sink = tracer(sampler)
    ours.dropped(trace(ours, DEVICE), END, "expired")
    (span,) = sink.spans()
    assert (span.name, span.status.code) == ("process plant/+/#", 2)


@NAMED
def test_attempts_that_fail_first_end_the_send_span_well_once(sampler: Sampler) -> None:
    ours, sink = tracer(sampler)
    message = trace(ours, DEVICE)
    ours.requested(REQUESTED, [message], END - 9, END - 5, "unavailable")
    ours.requested(REQUESTED, [message], END - 4, END)
    ours.stored([message], END)
    kinds = [(span.kind, span.status.code) for span in sink.spans()]
    assert kinds == [(3, 2), (3, 0), (5, 0), (4, 0)]


class Half(Sampler):
    """Records one of a message's two spans."""

    def __init__(self, kept: str) -> None:
        self._kept = kept

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> SamplingResult:
        kept = name.startswith(self._kept)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kept else Decision.DROP, args[1])

    def get_description(self) -> str:
        return f"Half{self._kept}"


@pytest.mark.parametrize(("kept", "kinds", "flags"), [("process", [5], "02"), ("send", [3, 4], "03")])
def test_a_sampler_may_keep_one_of_the_two_spans(kept: str, kinds: list[int], flags: str) -> None:
    ours, sink = tracer(Half(kept))
    traceparent, _, message = begin(ours, None)
    ours.requested(REQUESTED, [message], END - 9, END)
    ours.stored([message], END)
    assert [span.kind for span in sink.spans()] == kinds
    assert traceparent.endswith(flags)


class Decorating(Asked):
    """A sampler that adds attributes of all types that the API knows."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        added: dict[str, Any] = {
            "list": ["one", "two"],
            "numbers": (1, 2),
            "flags": [True, False],
            "ratio": 0.25,
            "negative": -1,
            "empty": [],
            "bytes": b"raw",
            "nested": {"inner": ["three", 4]},
        }
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {**args[4], **added})


@pytest.mark.parametrize("length", [None, 2])
def test_attributes_that_a_sampler_adds_equal_the_sdk(length: int | None) -> None:
    limits = SpanLimits(max_span_attribute_length=length)
    ours, sink = tracer(Decorating(), limits=limits)
    ours.requested(REQUESTED, [message := trace(ours, DEVICE)], END - 1000, END)
    ours.stored([message], END)
    theirs = with_sdk(sink, sampler=Decorating(), parent=DEVICE, limits=limits)
    assert without_batch(comparable(sink.request())) == without_batch(comparable(theirs))


class TestWhatTravelsOn:
    def test_continue_sends_the_send_span(self) -> None:
        ours, sink = tracer()
        traceparent, tracestate, message = begin(ours, DEVICE)
        ours.stored([message], END)
        assert traceparent == f"00-{DEVICE.trace_id}-{sink.named('send').span_id.hex()}-01"
        assert tracestate == DEVICE.tracestate

    @NAMED
    @pytest.mark.parametrize("policy", [CONTINUE, LINK])
    def test_a_new_trace_sends_the_send_span(self, sampler: Sampler, policy: ContextPolicy) -> None:
        ours, sink = tracer(sampler)
        traceparent, tracestate, message = begin(ours, DEVICE if policy is LINK else None, policy)
        ours.stored([message], END)
        send = sink.named("send")
        assert (traceparent, tracestate) == (f"00-{send.trace_id.hex()}-{send.span_id.hex()}-03", "")

    @NAMED
    def test_the_random_flag_of_the_device_is_kept_and_of_new_traces_set(self, sampler: Sampler) -> None:
        ours, _ = tracer(sampler)
        contexts = [DEVICE.replace(flags=flags) for flags in (3, 2, 1, 0)]
        assert [begin(ours, one)[0][-3:] for one in [*contexts, None]] == ["-03", "-02", "-01", "-00", "-03"]
        off, _ = tracer(ALWAYS_OFF)
        assert [begin(off, one)[0][-3:] for one in [*contexts, None]] == ["-02", "-02", "-00", "-00", "-02"]

    @NAMED
    @pytest.mark.parametrize("flags", [0, 1])
    def test_passthrough_sends_the_device_s_own(self, sampler: Sampler, flags: int) -> None:
        ours, _ = tracer(sampler)
        device = DEVICE.replace(flags=flags, tracestate="1a=b,c=d")
        traceparent, tracestate, message = begin(ours, device, PASSTHROUGH)
        assert (traceparent, tracestate) == (device.traceparent, device.tracestate)
        assert (message is not None) == bool(flags)

    @NAMED
    def test_an_unsampled_message_is_still_a_child_of_the_device(self, sampler: Sampler) -> None:
        ours, _ = tracer(sampler)
        device = DEVICE.replace(flags=0)
        traceparent, tracestate, message = begin(ours, device)
        made = parse_traceparent(traceparent)
        assert (made.trace_id, tracestate, message) == (device.trace_id, device.tracestate, None)
        assert made.span_id != device.span_id

    @NAMED
    @pytest.mark.parametrize(
        ("policy", "trust"), [(LINK, True), (LINK, False), (CONTINUE, False), (PASSTHROUGH, False)]
    )
    def test_new_traces_share_nothing_with_the_device(
        self, sampler: Sampler, policy: ContextPolicy, trust: bool
    ) -> None:
        ours, _ = tracer(sampler)
        traceparent, tracestate, _ = begin(ours, DEVICE, policy, trust=trust)
        assert parse_traceparent(traceparent).trace_id != DEVICE.trace_id
        assert tracestate == ""

    def test_without_tracing_the_device_s_context_travels_and_none_is_made_up(self) -> None:
        ours = Tracer(None)
        assert not ours.enabled
        assert begin(ours, DEVICE) == (DEVICE.traceparent, DEVICE.tracestate, None)
        assert begin(ours, None) == ("", "", None)
        assert begin(ours, DEVICE, trust=False) == ("", "", None)
        ours.requested(REQUESTED, [None], END, END)
        ours.stored([None], END)
        ours.dropped(None, END, "expired")


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
    decided = tuple(begin(ours, context)[2] is not None for context in (SAMPLED, UNSAMPLED, None))
    assert decided == expected


@pytest.mark.parametrize("low", ["0000000000000000", "3fffffffffffffff", "4000000000000000", "ffffffffffffffff"])
@pytest.mark.parametrize("sampler", [TraceIdRatioBased(0.25), ParentBased(ALWAYS_ON, TraceIdRatioBased(0.25))])
def test_ratios_cut_where_the_sdk_cuts(sampler: Sampler, low: str) -> None:
    ours, _ = tracer(sampler)
    context = DEVICE.replace(trace_id="0af7651916cd43dd" + low)
    theirs = sampler.should_sample(under(remote(context)), int(context.trace_id, 16), "x")
    assert (begin(ours, context)[2] is not None) == theirs.decision.is_sampled()


@pytest.mark.parametrize("policy", [CONTINUE, LINK])
@pytest.mark.parametrize(
    "sampler",
    [TraceIdRatioBased(0.25), ParentBasedTraceIdRatio(0.25)],
    ids=lambda sampler: sampler.get_description(),
)
def test_new_traces_are_sampled_at_the_ratio_as_the_sdk_would(sampler: Sampler, policy: ContextPolicy) -> None:
    ours, _ = tracer(sampler)
    decided = set()
    for _ in range(300):
        traceparent, _, message = begin(ours, DEVICE if policy is LINK else None, policy)
        made = parse_traceparent(traceparent)
        theirs = sampler.should_sample(Context(), int(made.trace_id, 16), "x").decision.is_sampled()
        assert (message is not None) == made.sampled == theirs
        decided.add(theirs)
    assert decided == {True, False}
