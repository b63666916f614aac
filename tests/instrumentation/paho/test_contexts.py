"""What is written into messages and read from them."""

from __future__ import annotations

import json
import queue
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge_context import TraceContext, parse_compact, parse_traceparent, split_topic
from spanbridge_instrumentation.paho import PahoInstrumentor
from spanbridge_instrumentation.paho.options import ENV_CARRIER, ENV_FORMAT


def properties(*pairs: tuple[str, str], **others: Any) -> Properties:
    made = Properties(PacketTypes.PUBLISH)
    for name, value in others.items():
        setattr(made, name, value)
    for pair in pairs:
        made.UserProperty = pair
    return made


@pytest.fixture
def plain(connect: Any, topic: str) -> Any:
    """An uninstrumented subscriber to the test's topic; ``plain()`` is the next raw message."""
    received: queue.Queue[mqtt.MQTTMessage] = queue.Queue()

    def subscribe(version: str = "5") -> Any:
        client = connect(version, subscribe=f"{topic}/#", on_message=lambda _c, _u, m: received.put(m))
        PahoInstrumentor().uninstrument_client(client)

        def get() -> mqtt.MQTTMessage:
            return received.get(timeout=30)

        return get

    return subscribe


def test_the_compact_form_is_the_default(instrumented: Any, connect: Any, plain: Any, topic: str) -> None:
    get = plain()
    connect().publish(topic, b"x", qos=1, properties=properties(("mine", "1"), ContentType="text/plain"))
    message = get()
    send = instrumented.sends()[0]
    assert message.properties.ContentType == "text/plain"
    (mine, tp) = message.properties.UserProperty
    assert mine == ("mine", "1")
    assert tp[0] == "tp"
    assert parse_compact(tp[1]).span_id == trace.format_span_id(send.context.span_id)


def test_w3c_writes_traceparent_and_everything_travels(
    instrument: Any, recorded: Any, connect: Any, plain: Any, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_FORMAT, "w3c")
    instrument()
    get = plain()
    remote = SpanContext(
        1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=trace.TraceState([("vendor", "value")])
    )
    context = baggage.set_baggage("tenant", "blue", trace.set_span_in_context(NonRecordingSpan(remote)))
    token = attach(context)
    connect().publish(topic, b"x", qos=1)
    detach(token)
    found = dict(get().properties.UserProperty)
    send = recorded.sends()[0]
    assert parse_traceparent(found["traceparent"]).span_id == trace.format_span_id(send.context.span_id)
    assert found["tracestate"] == "vendor=value"
    assert found["baggage"] == "tenant=blue"
    assert "tp" not in found


class Custom(TextMapPropagator):
    """A propagator of the user's: one header of its own."""

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        span = trace.get_current_span(context).get_span_context()
        carrier["x-custom"] = f"{span.trace_id:x}-{span.span_id:x}"

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        (value,) = getter.get(carrier, "X-Custom") or ("0-0",)
        ids = [int(part, 16) for part in value.split("-")]
        span = SpanContext(ids[0], ids[1], is_remote=True, trace_flags=TraceFlags(1))
        return trace.set_span_in_context(NonRecordingSpan(span), context)

    @property
    def fields(self) -> set[str]:
        return {"x-custom"}


def test_the_global_propagator_when_asked_for(instrument: Any, recorded: Any, connect: Any, topic: str) -> None:
    before = get_global_textmap()
    set_global_textmap(Custom())
    try:
        instrument(context_format="propagator")
        received: list[Any] = []
        client = connect(subscribe=topic, on_message=lambda _c, _u, m: received.append(m))
        client.publish(topic, b"x", qos=1)
        (process,), (send,) = recorded.processes(), recorded.sends()
    finally:
        set_global_textmap(before)
    assert process.parent.span_id == send.context.span_id
    assert dict(received[0].properties.UserProperty).keys() == {"x-custom"}


def test_a_propagator_takes_the_place_of_what_was_forwarded(
    instrument: Any, recorded: Any, connect: Any, plain: Any, topic: str
) -> None:
    before = get_global_textmap()
    set_global_textmap(Custom())
    try:
        instrument(context_format="propagator")
        get = plain()
        with recorded.tracer.start_as_current_span("around") as around:
            inbound = TraceContext.new().replace(trace_id=trace.format_trace_id(around.get_span_context().trace_id))
            old = [("tp", inbound.compact), ("tracestate", "old=1"), ("x-custom", "0-0")]
            mine = [("tp", "my own"), ("baggage", "no field of that propagator's")]
            connect().publish(topic, b"x", qos=1, properties=properties(*mine, *old))
        found = get().properties.UserProperty
    finally:
        set_global_textmap(before)
    assert [pair for pair in found if pair[0] != "x-custom"] == mine
    assert len(found) == 3


def test_a_properties_object_is_never_changed(instrumented: Any, connect: Any, plain: Any, topic: str) -> None:
    get = plain()
    reused = properties(("mine", "1"))
    client = connect()
    for _ in range(3):
        client.publish(topic, b"x", qos=1, properties=reused)
    assert reused.UserProperty == [("mine", "1")]
    seen = [get().properties.UserProperty for _ in range(3)]
    assert [len(pairs) for pairs in seen] == [2, 2, 2]
    assert len({pairs[1] for pairs in seen}) == 3


def test_a_context_of_the_callers_own_stays_and_is_linked(
    instrumented: Any, connect: Any, plain: Any, topic: str
) -> None:
    get = plain()
    own = TraceContext.new()
    client = connect()
    client.publish(topic, b"x", qos=1, properties=properties(("traceparent", own.traceparent)))
    with instrumented.tracer.start_as_current_span("other") as other:
        client.publish(topic, b"x", qos=1, properties=properties(("traceparent", own.traceparent)))
    alone, beside = sorted(instrumented.sends(2), key=lambda span: span.start_time)
    for _ in range(2):
        assert get().properties.UserProperty == [("traceparent", own.traceparent)]
    assert trace.format_span_id(alone.parent.span_id) == own.span_id
    assert beside.parent.span_id == other.get_span_context().span_id
    for send in (alone, beside):
        assert send.kind is trace.SpanKind.CLIENT  # it is not the creation context
        assert [trace.format_span_id(link.context.span_id) for link in send.links] == [own.span_id]


def test_forwarding_received_properties_does_not_keep_the_old_context(
    instrumented: Any, connect: Any, plain: Any, topic: str
) -> None:
    get = plain()

    def forward(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        client.publish(f"{topic}/forwarded", message.payload, qos=1, properties=message.properties)

    connect(subscribe="forward/" + topic, on_message=forward).publish("forward/" + topic, b"x", qos=1)
    found = dict(get().properties.UserProperty)
    second = max(instrumented.sends(2), key=lambda span: span.start_time)
    assert parse_compact(found["tp"]).span_id == trace.format_span_id(second.context.span_id)
    assert list(found) == ["tp"]


def test_unsampled_contexts_travel_with_the_flag_cleared(recorded: Any, connect: Any, plain: Any, topic: str) -> None:
    instrumentor = PahoInstrumentor()
    instrumentor.instrument(
        tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False),
        meter_provider=recorded.meter_provider,
    )
    try:
        get = plain()
        connect().publish(topic, b"x", qos=1).wait_for_publish(5)
        assert not parse_compact(dict(get().properties.UserProperty)["tp"]).sampled
        assert recorded.total("messaging.client.sent.messages") == 1
    finally:
        instrumentor.uninstrument()


GOOD = TraceContext.new()
MUCH = ",".join(f"k{n}={'v' * 50}" for n in range(900))


@pytest.mark.parametrize(
    ("pairs", "problem", "kept"),
    [
        ([("traceparent", "00-nonsense")], "malformed", False),
        ([("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01")], "zero_id", False),
        ([("traceparent", GOOD.traceparent), ("traceparent", TraceContext.new().traceparent)], "duplicate", False),
        ([("traceparent", GOOD.traceparent + "\n")], "malformed", False),
        ([("tp", "my own property")], None, False),
        ([("traceparent", "x" * 60_000)], "malformed", False),
        ([("traceparent", GOOD.traceparent), ("baggage", MUCH)], "baggage", True),
        ([("traceparent", GOOD.traceparent), ("tracestate", "=" * 3000)], "tracestate", True),
    ],
    ids=["malformed", "zero", "duplicate", "newline", "not-ours", "oversized", "baggage", "tracestate"],
)  # fmt: skip
def test_bad_contexts_never_keep_a_message(
    instrumented: Any, scripted: Any, pairs: list[tuple[str, str]], problem: str | None, kept: bool
) -> None:
    arrived = []
    client = scripted.client(loop=False)
    client.on_message = lambda _c, _u, message: arrived.append((message.payload, message.properties.UserProperty))
    client.loop_read()
    scripted.publish("a", b"x", properties(*pairs).pack())
    while not arrived:
        client.loop_read()
    assert arrived == [(b"x", pairs)]
    (span,) = instrumented.processes()
    assert span.attributes.get("spanbridge.context.problem") == problem
    assert (span.parent is not None) is kept
    if kept:
        assert trace.format_span_id(span.parent.span_id) == GOOD.span_id


def test_level_2_tracestate_travels(instrumented: Any, scripted: Any) -> None:
    seen = []
    client = scripted.client(loop=False)
    client.on_message = lambda *_: seen.append(trace.get_current_span().get_span_context().trace_state.to_header())
    client.loop_read()
    state = "1a-2b*3c/4d@5e=value," + ",".join(f"k{n}={'v' * 40}" for n in range(16))
    scripted.publish("a", b"x", properties(("traceparent", GOOD.traceparent), ("tracestate", state)).pack())
    while not seen:
        client.loop_read()
    assert seen == [state]


@pytest.mark.parametrize("carrier", ["topic", "json"])
def test_version_3_carriers_when_asked_for(
    instrument: Any, recorded: Any, connect: Any, topic: str, carrier: str
) -> None:
    instrument(v311_carrier=carrier)
    received: list[Any] = []
    client = connect(
        "3.1.1", subscribe=f"{topic}/#", on_message=lambda _c, _u, m: received.append((m.topic, m.payload))
    )
    client.publish(f"{topic}/state", '{"a": 1}', qos=1)
    (process,), (send,) = recorded.processes(), recorded.sends()
    assert process.parent.span_id == send.context.span_id
    assert send.kind is trace.SpanKind.PRODUCER
    assert received == [(f"{topic}/state", b'{"a": 1}')]
    assert send.attributes["messaging.destination.name"] == process.attributes["messaging.destination.name"]
    assert process.name == "process tests/+/#"


def test_the_topic_suffix_and_json_members_as_others_see_them(
    instrument: Any, recorded: Any, connect: Any, plain: Any, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_CARRIER, "topic")
    instrumentor = instrument()
    get = plain("3.1.1")
    client = connect("3.1.1")
    client.publish(f"{topic}/state", b"x", qos=1)
    seen, context, _ = split_topic(get().topic)
    assert seen == f"{topic}/state"
    assert context is not None
    client.publish(f"{topic}/retained", b"", qos=1, retain=True)
    assert get().topic == f"{topic}/retained"
    instrumentor.instrument_client(client, v311_carrier="json", **recorded.providers)
    client.publish(f"{topic}/state", b'{"a": 1}', qos=1)
    assert set(json.loads(get().payload)) == {"traceparent", "a"}
    client.publish(f"{topic}/state", b"\x00no json", qos=1)
    assert get().payload == b"\x00no json"


def test_version_3_messages_stay_as_they_are_by_default(
    instrumented: Any, connect: Any, plain: Any, topic: str
) -> None:
    get = plain("3.1.1")
    connect("3.1.1").publish(topic, b'{"a": 1}', qos=1)
    message = get()
    assert (message.topic, message.payload) == (topic, b'{"a": 1}')


def test_options_that_are_wrong(instrument: Any, monkeypatch: pytest.MonkeyPatch, recorded: Any) -> None:
    before = mqtt.Client.publish
    with pytest.raises(ValueError, match="compact"):
        instrument(context_format="b3")
    with pytest.raises(TypeError):
        PahoInstrumentor().instrument_client(object())
    assert mqtt.Client.publish is before
    assert not PahoInstrumentor().is_instrumented_by_opentelemetry
    monkeypatch.setenv(ENV_FORMAT, "nonsense")
    instrument()
    mqtt.Client(mqtt.CallbackAPIVersion.VERSION2).publish("a", b"x")
    recorded.sends()


def test_the_quick_way_of_packing_user_properties_writes_what_paho_writes() -> None:
    from spanbridge_instrumentation.paho.carriers import with_user_properties

    pairs = [("tp", GOOD.compact), ("ключ", "значение" * 40), ("", "")]
    assert with_user_properties(None, pairs).pack() == properties(*pairs).pack()
    assert type(with_user_properties(properties(), pairs)) is Properties
