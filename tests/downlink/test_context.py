"""Where a trace context travels in an MQTT message, by version and form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from spanbridge.core.downlinks import ContextForm
from spanbridge.core.message import Message, Publish
from spanbridge.core.policy import ContextPolicy
from spanbridge.downlink import DownlinkEnds
from spanbridge.downlink.maker import Maker
from spanbridge.telemetry import Peer, Tracer
from spanbridge_context import TraceContext, extract_user_properties, split_json, split_topic
from tests.fakes import FakeReporter

from .fakes import FakeQueue, FakeTime, QueueDelivery, downlink

SENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "vendor=1", "user=7")
CARRIED = {"traceparent": SENT.traceparent, "tracestate": "vendor=1", "baggage": "user=7"}
NOWHERE = FakeQueue()


class Kept:
    def add(self, pieces: Any, each: int = 1) -> None: ...


def make(
    properties: dict[str, str] | None = None,
    body: bytes = b"{}",
    *,
    v5: bool = True,
    tracing: bool = True,
    trace_context: str | None = None,
    events: FakeReporter | None = None,
    **settings: Any,
) -> Publish:
    clock, events = FakeTime(), events or FakeReporter()
    ends = DownlinkEnds(gateway="gw", cluster=Peer(), broker=Peer(), v5=v5)
    tracer = Tracer(Kept(), sampler=ALWAYS_ON) if tracing else Tracer(None)
    maker = Maker(downlink("a/b", **settings), ends, tracer=tracer, reporter=events, clock=clock)
    message = Message("commands", body, properties=properties or {}, trace_context=trace_context)
    return maker.make(QueueDelivery(message, NOWHERE, 1, 0)).publish


@pytest.mark.parametrize("form", [None, ContextForm.COMPACT, ContextForm.W3C])
def test_mqtt_5_carries_it_in_user_properties(form: ContextForm | None) -> None:
    publish = make(CARRIED, form=form)
    names = [name for name, _ in publish.user_properties]
    parent = "traceparent" if form is ContextForm.W3C else "tp"
    assert names == ["spanbridge.path", parent, "tracestate", "baggage"]
    found = extract_user_properties(publish.user_properties).context
    assert found is not None
    assert (found.trace_id, found.tracestate, found.baggage) == (SENT.trace_id, "vendor=1", "user=7")
    assert found.span_id != SENT.span_id


@pytest.mark.parametrize("v5", [True, False])
def test_a_suffix_of_the_topic(v5: bool) -> None:
    plain, found, _ = split_topic(make(CARRIED, v5=v5, form=ContextForm.TOPIC_SUFFIX).topic)
    assert plain == "a/b"
    assert found is not None
    assert found.trace_id == SENT.trace_id
    assert make(CARRIED, v5=v5, form=ContextForm.TOPIC_SUFFIX, retain=True).topic == "a/b"
    assert make(CARRIED | {"mqtt.retain": "true"}, v5=v5, form=ContextForm.TOPIC_SUFFIX).topic == "a/b"


@pytest.mark.parametrize("v5", [True, False])
def test_a_member_of_a_json_payload(v5: bool) -> None:
    publish = make(CARRIED, b'{"on":true}', v5=v5, form=ContextForm.JSON_PAYLOAD)
    assert json.loads(publish.payload)["tracestate"] == "vendor=1"
    payload, found, _ = split_json(publish.payload)
    assert payload == b'{"on":true}'
    assert found is not None
    assert found.trace_id == SENT.trace_id
    assert make(CARRIED, b"\x00raw", v5=v5, form=ContextForm.JSON_PAYLOAD).payload == b"\x00raw"


@pytest.mark.parametrize("form", [ContextForm.NONE, ContextForm.TOPIC_SUFFIX, ContextForm.JSON_PAYLOAD])
def test_only_the_forms_that_are_user_properties_write_any(form: ContextForm) -> None:
    assert make(CARRIED, b"x", form=form).user_properties == [("spanbridge.path", "gw")]


@pytest.mark.parametrize("form", [None, ContextForm.COMPACT, ContextForm.W3C, ContextForm.NONE])
def test_mqtt_311_carries_topic_and_payload_alone_and_says_so_once(form: ContextForm | None) -> None:
    events = FakeReporter()
    publish = make(CARRIED, v5=False, form=form, events=events)
    assert (publish.topic, publish.payload, publish.user_properties) == ("a/b", b"{}", ())
    assert events.names() == [], "there was nothing else to lose"
    publish = make({"site": "ulm", "mqtt.expiry": "60"}, v5=False, form=form, events=events)
    assert (publish.user_properties, publish.expiry) == ((), None)
    assert events.names() == ["downlink.plain"]


def test_it_is_told_once_for_all_messages() -> None:
    events = FakeReporter()
    ends = DownlinkEnds(gateway="gw", cluster=Peer(), broker=Peer(), v5=False)
    maker = Maker(downlink("a"), ends, tracer=Tracer(None), reporter=events, clock=FakeTime())
    for _ in range(3):
        maker.make(QueueDelivery(Message("t", b"", properties={"a": "b"}), NOWHERE, 1, 0))
    assert events.names() == ["downlink.plain"]


def test_passthrough_and_untrusted() -> None:
    through = extract_user_properties(make(CARRIED, context=ContextPolicy.PASSTHROUGH).user_properties).context
    assert through == SENT
    own = extract_user_properties(make(CARRIED, trust=False).user_properties).context
    assert own is not None
    assert own.trace_id != SENT.trace_id
    assert own.baggage == ""
    linked = extract_user_properties(make(CARRIED, context=ContextPolicy.LINK).user_properties).context
    assert linked is not None
    assert linked.trace_id != SENT.trace_id


def test_without_spans_the_producers_context_travels_on_and_none_is_made_up() -> None:
    assert extract_user_properties(make(CARRIED, tracing=False).user_properties).context == SENT
    assert make(tracing=False).user_properties == [("spanbridge.path", "gw")]
    assert make(CARRIED, tracing=False, trust=False).user_properties == [("spanbridge.path", "gw")]


def test_rocketmqs_own_property_is_read_where_there_is_no_other() -> None:
    for found in (make(trace_context=SENT.traceparent), make({"TRACE_CONTEXT": SENT.traceparent})):
        context = extract_user_properties(found.user_properties).context
        assert context is not None
        assert context.trace_id == SENT.trace_id
        assert [name for name, _ in found.user_properties] == ["spanbridge.path", "tp"]


def test_nobody_forges_a_context_through_user_properties() -> None:
    forged = {"mqtt.user.traceparent": SENT.traceparent, "mqtt.user.tp": SENT.compact, "mqtt.user.tracestate": "a=b"}
    own = extract_user_properties(make(forged).user_properties).context
    assert own is not None
    assert own.trace_id != SENT.trace_id
    assert own.tracestate == ""
    assert make(forged, tracing=False).user_properties == [("tracestate", "a=b"), ("spanbridge.path", "gw")]


def test_what_is_called_like_a_carrier_and_is_none_comes_down_as_it_went_up() -> None:
    plain = {"mqtt.user.tp": "tempo 7", "mqtt.user.baggage": "two bags"}
    assert make(plain, tracing=False).user_properties == [
        ("tp", "tempo 7"),
        ("baggage", "two bags"),
        ("spanbridge.path", "gw"),
    ]
    assert ("tp", "tempo 7") in make(plain).user_properties


def test_a_context_that_is_no_context_stops_no_message() -> None:
    publish = make({"traceparent": "00-nonsense", "a": "b"}, tracing=False)
    assert publish.user_properties == [("a", "b"), ("spanbridge.path", "gw")]


def test_the_path_of_a_message_goes_on() -> None:
    assert ("spanbridge.path", "first,gw") in make({"spanbridge.path": "first"}).user_properties


def test_properties_that_mqtt_cannot_carry_are_counted() -> None:
    events = FakeReporter()
    make({"a": "\x01", "b": "fine"}, events=events)
    assert events.names() == ["downlink.properties.dropped"]
