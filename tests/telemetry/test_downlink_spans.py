"""The downlink's spans are those that the OpenTelemetry SDK and its OTLP encoder would have sent, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from spanbridge.core.downlinks import Downlink
from spanbridge.core.message import Message
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.template import DOWN, Template
from spanbridge.downlink import ConsumerCalls
from spanbridge.downlink.recipe import queue_hop
from spanbridge.telemetry import DownlinkMetrics, Hop, Tracer
from spanbridge.telemetry.metrics.convention import Convention
from spanbridge_context import TraceContext

from .otlp import SOURCE, TARGET, Collected, Reference, comparable, tracer
from .test_spans import DEVICE, END, Asked, remote, under

NAMED = pytest.mark.parametrize("sampler", [DEFAULT_ON, Asked()], ids=lambda sampler: sampler.get_description())
RECEIVED = END - 1_000_000
COMMANDS = Downlink(
    name="c", topic="commands", group="gw-1", broker="plant", publish=Template.parse("devices/{key}/cmd", DOWN)
)
MESSAGE = Message(
    "commands",
    b"{}",
    message_id="01A1B2C3D4E5F60718293A4B5C6D7E8F90",
    tag="reboot",
    keys=("d1", "order-7"),
    group="d1",
    properties={"traceparent": DEVICE.traceparent, "tracestate": DEVICE.tracestate},
)
QUEUE = {
    "messaging.system": "rocketmq",
    "messaging.destination.name": "commands",
    "messaging.consumer.group.name": "gw-1",
    "messaging.client.id": "gw-1@2",
    "messaging.rocketmq.namespace": "ns",
    "server.address": "rmq.example",
    "server.port": 8081,
}
PROCESS = QUEUE | {
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.message.body.size": 2,
    "messaging.message.id": MESSAGE.message_id,
    "messaging.rocketmq.message.tag": "reboot",
    "messaging.rocketmq.message.keys": ("d1", "order-7"),
    "messaging.rocketmq.message.group": "d1",
}
SEND = {
    "messaging.system": "mqtt",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.template": "devices/{key}/cmd",
    "messaging.destination.name": "devices/d1/cmd",
    "messaging.message.body.size": 2,
    "messaging.client.id": "gw-1",
    "server.address": "broker.example",
    "server.port": 1883,
}


def begin(ours: Tracer, policy: ContextPolicy, context: TraceContext | None) -> Any:
    process = queue_hop("process", COMMANDS, TARGET)
    send = Hop(operation="send", system="mqtt", destination="devices/d1/cmd", template="devices/{key}/cmd", peer=SOURCE)
    trace = ours.spans(process, send, policy=policy, trust=True).begin(context, RECEIVED, 2)[2]
    ours.describe(trace, MESSAGE)
    return trace


def sdk_message(
    sink: Collected, sampler: Sampler, limits: SpanLimits | None, ends: dict[str, Any], error: str | None
) -> Any:
    sdk = Reference(sampler, limits)
    common: dict[str, Any] = {} if error is None else {"error.type": error}
    process = sdk.start(
        sink.named("process"), "process commands", kind=SpanKind.CONSUMER, attributes=PROCESS | common, **ends
    )
    send = sdk.start(
        sink.named("send"),
        "send devices/{key}/cmd",
        context=under(process.get_span_context()),
        kind=SpanKind.PRODUCER,
        attributes=SEND | common,
    )
    for span in (send, process):
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(END)
    return sdk.request()


@NAMED
@pytest.mark.parametrize("error", [None, "no_matching_subscribers"])
@pytest.mark.parametrize("limits", [None, SpanLimits(max_span_attribute_length=3)])
@pytest.mark.parametrize(
    ("policy", "context"),
    [(ContextPolicy.CONTINUE, DEVICE), (ContextPolicy.CONTINUE, None), (ContextPolicy.LINK, DEVICE)],
)
def test_a_message_equals_the_sdk(
    sampler: Sampler,
    error: str | None,
    limits: SpanLimits | None,
    policy: ContextPolicy,
    context: TraceContext | None,
) -> None:
    ours, sink = tracer(sampler, limits=limits)
    trace = begin(ours, policy, context)
    if error is None:
        ours.stored([trace], END)
    else:
        trace.tried = True
        ours.dropped(trace, END, error)
    ends: dict[str, Any] = {"context": Context()}
    if context is not None:
        link = policy is ContextPolicy.LINK
        ends = {"context": Context(), "links": [Link(remote(context))]} if link else {"context": under(remote(context))}
    assert comparable(sink.request()) == comparable(sdk_message(sink, sampler, limits, ends, error))


def test_a_long_message_id_is_a_message_id() -> None:
    ours, sink = tracer()
    process = queue_hop("process", COMMANDS, TARGET)
    for length in (0, 1, 90, 130, 5000):
        trace = ours.spans(process, process, policy=ContextPolicy.CONTINUE, trust=True).begin(None, 1, 0)[2]
        ours.describe(trace, Message("t", b"", message_id="x" * length))
        ours.stored([trace], END)
    ids = [a.value.string_value for span in sink.spans() for a in span.attributes if a.key == "messaging.message.id"]
    assert [len(one) for one in ids] == [1, 90, 130, 5000]


def consumer(ours: Tracer, **settings: Any) -> ConsumerCalls:
    downlink = Downlink(
        name="c", topic="commands", group="gw-1", broker="b", publish=Template.parse("x", DOWN), **settings
    )
    return ConsumerCalls(downlink, TARGET, tracer=ours, metrics=DownlinkMetrics(Convention()), reporter=Failing())


class Failing:
    def report(self, event: Any) -> None:
        raise AssertionError(event.text())


def messages(*contexts: TraceContext | None) -> list[Message]:
    return [
        Message("commands", b"", properties={} if one is None else {"traceparent": one.traceparent}) for one in contexts
    ]


CONTEXTS = [DEVICE, None, TraceContext.new(), DEVICE.replace(flags=0)]


@NAMED
@pytest.mark.parametrize("links", [128, 2, 0])
def test_a_receive_call_links_its_messages_and_equals_the_sdk(sampler: Sampler, links: int) -> None:
    limits = SpanLimits(max_links=links)
    ours, sink = tracer(sampler, limits=limits)
    consumer(ours).received(messages(*CONTEXTS), END - 9, END)
    (receive,) = sink.spans()
    sdk = Reference(sampler, limits)
    span = sdk.start(
        receive,
        "receive commands",
        context=Context(),
        kind=SpanKind.CLIENT,
        attributes={
            **QUEUE,
            "messaging.operation.name": "receive",
            "messaging.operation.type": "receive",
            "messaging.batch.message_count": 4,
        },
        links=[Link(remote(one)) for one in CONTEXTS if one is not None],
    )
    span.end(END)
    assert comparable(sink.request()) == comparable(sdk.request())


@NAMED
@pytest.mark.parametrize("error", [None, "unavailable"])
def test_an_ack_call_equals_the_sdk(sampler: Sampler, error: str | None) -> None:
    ours, sink = tracer(sampler)
    consumer(ours).acked("commands", 3, END - 9, END, error)
    (ack,) = sink.spans()
    sdk = Reference(sampler)
    attributes: dict[str, Any] = {
        **QUEUE,
        "messaging.operation.name": "ack",
        "messaging.operation.type": "settle",
        "messaging.batch.message_count": 3,
    }
    if error is not None:
        attributes["error.type"] = error
    span = sdk.start(ack, "ack commands", context=Context(), kind=SpanKind.CLIENT, attributes=attributes)
    if error is not None:
        span.set_status(Status(StatusCode.ERROR))
    span.end(END)
    assert comparable(sink.request()) == comparable(sdk.request())


def test_a_call_that_brought_nothing_has_no_span() -> None:
    ours, sink = tracer()
    consumer(ours).received([], END - 9, END)
    assert sink.framed == []


def test_senders_that_are_not_trusted_are_not_linked_to() -> None:
    ours, sink = tracer()
    consumer(ours, trust=False).received(messages(DEVICE), END - 9, END)
    assert [len(span.links) for span in sink.spans()] == [0]


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, TraceIdRatioBased(0.0)])
def test_calls_are_sampled_as_roots(sampler: Sampler) -> None:
    ours, sink = tracer(sampler)
    calls = consumer(ours)
    calls.received(messages(DEVICE), END - 9, END)
    calls.acked("commands", 1, END - 9, END)
    assert sink.framed == []
    ours, sink = tracer(ALWAYS_ON)
    consumer(ours).received(messages(DEVICE), END - 9, END)
    assert len(sink.framed) == 1


def test_without_tracing_there_are_durations_all_the_same() -> None:
    convention = Convention()
    calls = ConsumerCalls(
        COMMANDS, TARGET, tracer=Tracer(None), metrics=DownlinkMetrics(convention, TARGET, SOURCE), reporter=Failing()
    )
    calls.received(messages(None), END - 2_000_000_000, END)
    calls.acked("commands", 1, END + 1, END, "unavailable")  # the clock was set back
    found = {dict(labels)["messaging.operation.name"]: dict(labels) for labels in convention.operation.series}
    assert found["receive"]["messaging.consumer.group.name"] == "gw-1"
    assert (found["ack"]["messaging.operation.type"], found["ack"]["error.type"]) == ("settle", "unavailable")
    assert [series.sum for series in convention.operation.series.values()] == [2.0, 0.0]


def test_requests_of_one_destination_are_told_apart_by_what_is_done_there() -> None:
    """A RocketMQ topic may be called like an MQTT topic, and be sent to as well as received from."""
    ours, sink = tracer()
    for operation, system in (("send", "rocketmq"), ("send", "mqtt"), ("publish", "mqtt")):
        hop = Hop(operation=operation, system=system, destination="x")
        trace = ours.spans(hop, hop, policy=ContextPolicy.CONTINUE, trust=True).begin(None, 1, 0)[2]
        ours.requested(hop, [trace], END - 9, END)
    told = [(span.name, _value(span.attributes, "messaging.system")) for span in sink.spans()]
    assert told == [("send x", "rocketmq"), ("send x", "mqtt"), ("publish x", "mqtt")]


def _value(attributes: Sequence[Any], key: str) -> str:
    return next(str(one.value.string_value) for one in attributes if one.key == key)
