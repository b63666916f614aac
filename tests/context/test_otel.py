"""The OpenTelemetry interfaces over the codec."""

from __future__ import annotations

import logging
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge_context import TraceContext, TraceContextError
from spanbridge_context.otel import (
    Level2TraceState,
    SpanbridgePropagator,
    from_span_context,
    property_map_getter,
    property_map_setter,
    to_span_context,
    user_property_getter,
    user_property_setter,
)

CONTEXT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 3, "0vendor=1,congo=t61rcWkgMzE")


def current(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def with_span(context: TraceContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(to_span_context(context)), Context())


@pytest.mark.parametrize("form", ["w3c", "compact"])
def test_round_trip_through_user_properties(form: str) -> None:
    propagator = SpanbridgePropagator(form)
    carrier = [("unit", "C"), ("tp", "4.7")]
    propagator.inject(carrier, with_span(CONTEXT), user_property_setter)
    assert carrier[:2] == [("unit", "C"), ("tp", "4.7")]
    assert {name for name, _ in carrier[2:]} == propagator.fields
    assert from_span_context(current(propagator.extract(carrier, Context(), user_property_getter))) == CONTEXT
    before = list(carrier)
    propagator.inject(carrier, with_span(CONTEXT), user_property_setter)
    assert carrier == before  # a carrier that is used again does not grow


def test_round_trip_through_a_rocketmq_property_map() -> None:
    carrier = {"mqtt.topic": "t"}
    SpanbridgePropagator().inject(carrier, with_span(CONTEXT), property_map_setter)
    extracted = SpanbridgePropagator().extract(carrier, Context(), property_map_getter)
    assert current(extracted).is_remote
    assert from_span_context(current(extracted)) == CONTEXT
    assert property_map_getter.keys(carrier) == ["mqtt.topic", "traceparent", "tracestate"]


def test_it_agrees_with_opentelemetrys_own_where_that_one_is_right() -> None:
    plain = CONTEXT.replace(tracestate="rojo=00f067aa0ba902b7")
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    SpanbridgePropagator().inject(ours, with_span(plain))
    TraceContextTextMapPropagator().inject(theirs, with_span(plain))
    assert ours == theirs
    one = current(SpanbridgePropagator().extract(ours))
    other = current(TraceContextTextMapPropagator().extract(ours))
    assert one == other
    assert one.trace_state.to_header() == other.trace_state.to_header()


@pytest.mark.parametrize(
    "properties",
    [
        [],
        [("unit", "C")],
        [("traceparent", CONTEXT.traceparent), ("traceparent", CONTEXT.child().traceparent)],
        [("traceparent", CONTEXT.traceparent + "\n")],
        [("traceparent", "")],
        [("tp", "4.7")],
    ],
)
def test_what_holds_no_single_valid_parent_changes_nothing(properties: list) -> None:
    before = with_span(CONTEXT)
    assert SpanbridgePropagator().extract(properties, before, user_property_getter) is before
    assert not current(SpanbridgePropagator().extract(properties, getter=user_property_getter)).is_valid


def test_an_invalid_span_is_not_injected() -> None:
    carrier: dict[str, str] = {}
    SpanbridgePropagator().inject(carrier, Context())
    assert carrier == {}


def test_a_new_parent_takes_the_old_one_and_its_state_away() -> None:
    carrier = [("tp", CONTEXT.compact), ("tracestate", "old=1"), ("baggage", "k=v")]
    fresh = TraceContext.new()
    SpanbridgePropagator().inject(carrier, with_span(fresh), user_property_setter)
    assert carrier == [("baggage", "k=v"), ("traceparent", fresh.traceparent)]


def test_a_new_parent_takes_the_old_ones_state_away_in_a_property_map_too() -> None:
    carrier = {"traceparent": CONTEXT.traceparent, "tracestate": "old=1", "baggage": "k=v"}
    fresh = TraceContext.new()
    SpanbridgePropagator().inject(carrier, with_span(fresh), property_map_setter)
    assert carrier == {"traceparent": fresh.traceparent, "baggage": "k=v"}
    SpanbridgePropagator().inject(carrier, with_span(fresh.replace(tracestate="a=1")), property_map_setter)
    assert carrier["tracestate"] == "a=1"


@pytest.mark.parametrize("state", [["A=1"], ["a=1", "b"], ["a=" + "1" * 257]])
def test_a_state_that_is_none_costs_at_most_itself(state: list) -> None:
    carrier = {"traceparent": CONTEXT.traceparent, "tracestate": state}
    extracted = current(SpanbridgePropagator().extract(carrier))
    assert extracted.trace_id == int(CONTEXT.trace_id, 16)
    assert extracted.trace_state.to_header() == ""


@pytest.mark.parametrize(
    "carrier", [{"traceparent": 5}, {"tp": 5}, {"traceparent": CONTEXT.traceparent, "tracestate": 5}]
)
def test_values_that_are_no_strings_are_no_context(carrier: dict) -> None:
    assert not current(SpanbridgePropagator().extract(carrier)).is_valid


def test_baggage_travels_with_its_own_propagator() -> None:
    both = CompositePropagator([SpanbridgePropagator("compact"), W3CBaggagePropagator()])
    carrier: list[tuple[str, str]] = []
    both.inject(carrier, baggage.set_baggage("user", "7", with_span(CONTEXT)), user_property_setter)
    assert ("baggage", "user=7") in carrier
    extracted = both.extract(carrier, Context(), user_property_getter)
    assert baggage.get_baggage("user", extracted) == "7"
    assert current(extracted).trace_id == int(CONTEXT.trace_id, 16)


def test_the_sdk_takes_the_context_up() -> None:
    tracer = TracerProvider().get_tracer("test")
    parent = SpanbridgePropagator().extract([("tp", CONTEXT.compact)], Context(), user_property_getter)
    span = tracer.start_span("process", parent)
    assert from_span_context(span.get_span_context()).trace_id == CONTEXT.trace_id
    assert span.parent.span_id == int(CONTEXT.span_id, 16)


def test_getter_gives_all_values_and_each_name_once() -> None:
    properties = [("a", "1"), ("b", "2"), ("a", "3")]
    assert user_property_getter.get(properties, "a") == ["1", "3"]
    assert user_property_getter.get(properties, "c") is None
    assert user_property_getter.keys(properties) == ["a", "b"]
    assert property_map_getter.get({"a": "1"}, "a") == ["1"]
    assert property_map_getter.get({"a": "1"}, "b") is None


def test_conversion_refuses_an_invalid_span_context() -> None:
    with pytest.raises(TraceContextError) as caught:
        from_span_context(trace.INVALID_SPAN_CONTEXT)
    assert caught.value.problem == "zero_id"


def test_conversion_takes_opentelemetrys_own_trace_state_and_baggage() -> None:
    span_context = SpanContext(1, 2, False, TraceFlags(1), TraceState([("a", "1"), ("b", "2")]))
    converted = from_span_context(span_context, "k=v")
    assert (converted.tracestate, converted.baggage, converted.flags) == ("a=1,b=2", "k=v", 1)
    assert to_span_context(converted, is_remote=False) == span_context


def test_otel_propagators_finds_it_by_name() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    declared = project["entry-points"]["opentelemetry_propagator"]
    point = EntryPoint("spanbridge", declared["spanbridge"], "opentelemetry_propagator")
    assert isinstance(point.load()(), SpanbridgePropagator)  # made without arguments, as the SDK's configuration does


def test_another_form_is_refused() -> None:
    with pytest.raises(TraceContextError):
        SpanbridgePropagator("binary")


class TestLevel2TraceState:
    """It is a TraceState, with Level 2's keys and without a loss when it is changed."""

    def test_reads_as_a_mapping_and_writes_the_header_as_it_came(self) -> None:
        state = Level2TraceState("0a=1,b@=2,0a=3")
        assert dict(state) == {"0a": "1", "b@": "2"}  # the left one is the newest
        assert state.to_header() == "0a=1,b@=2,0a=3"
        assert len(state) == 2

    def test_changes_keep_the_other_members_in_order(self, caplog: pytest.LogCaptureFixture) -> None:
        state = Level2TraceState("0a=1,b=2")
        with caplog.at_level(logging.WARNING):
            assert state.add("c@", "3").to_header() == "c@=3,0a=1,b=2"
            assert state.add("b", "3") is state
            assert state.update("b", "3").to_header() == "b=3,0a=1"
            assert state.delete("0a").to_header() == "b=2"
            assert state.delete("x") is state
            assert state.add("A", "1") is state
            assert state.update("b", "") is state
        assert caplog.records == []

    def test_a_thirty_third_member_is_not_added(self) -> None:
        state = Level2TraceState(",".join(f"k{i}=1" for i in range(32)))
        assert state.add("k32", "1") is state

    def test_it_is_made_as_the_base_is(self) -> None:
        state = Level2TraceState.from_header(["0a=1", "b@=2"])
        assert isinstance(state, Level2TraceState)
        assert state.to_header() == "0a=1,b@=2"
        assert Level2TraceState.from_header(["a=1", "A=1"]).to_header() == ""
        assert Level2TraceState.get_default().to_header() == ""

    def test_is_true_when_it_has_members(self) -> None:
        assert Level2TraceState("a=1")
        assert not Level2TraceState(" , ")

    def test_refuses_what_is_not_a_tracestate(self) -> None:
        with pytest.raises(TraceContextError):
            Level2TraceState("A=1")
