"""TraceContext as a value, and what importing the codec costs."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest

import spanbridge_context
from spanbridge_context import (
    PROBLEMS,
    TraceContext,
    TraceContextError,
    context_from_compact,
    extract_rocketmq,
    extract_topic,
    extract_user_properties,
    inject_json,
    inject_rocketmq,
    inject_topic,
    inject_user_properties,
    parse_compact,
    parse_traceparent,
    split_json,
    split_topic,
    split_user_properties,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TEXT = f"00-{TRACE}-{SPAN}-01"


def test_fields_in_every_form() -> None:
    context = TraceContext(TRACE, SPAN, 1, "rojo=1", "k=v")
    assert (context.trace_id, context.span_id, context.flags, context.sampled) == (TRACE, SPAN, 1, True)
    assert (context.tracestate, context.baggage) == ("rojo=1", "k=v")
    assert context.trace_id_bytes == bytes.fromhex(TRACE)
    assert context.span_id_bytes == bytes.fromhex(SPAN)
    assert context.traceparent == TEXT
    assert len(context.compact) == 35
    assert parse_traceparent(TEXT) == parse_compact(context.compact) == TraceContext(TRACE, SPAN)


def test_ids_may_be_bytes() -> None:
    assert TraceContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN)) == TraceContext(TRACE, SPAN)


@pytest.mark.parametrize("value", ["", "21.5", "!" * 35, "A" * 34 + "B", "A" * 36])
def test_a_user_property_tp_that_does_not_decode_is_the_applications_own(value: str) -> None:
    own = (("tp", value), ("a", "b"))
    assert split_user_properties(own) == (None, None, list(own))
    context = TraceContext(TRACE, SPAN)
    assert inject_user_properties(own, context) == [*own, ("tp", context.compact)]
    assert split_user_properties([*own, ("tp", context.compact)]) == (context, None, list(own))


def test_it_is_a_value() -> None:
    one, same, other = TraceContext(TRACE, SPAN), parse_traceparent(TEXT), TraceContext(TRACE, SPAN, 0)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != TraceContext(TRACE, SPAN, tracestate="a=1")
    assert one != TraceContext(TRACE, SPAN, baggage="a=1")
    assert one != TEXT
    assert {one, same, other} == {one, other}
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    "name",
    ["trace_id", "span_id", "trace_id_bytes", "span_id_bytes", "flags", "sampled", "tracestate", "baggage", "x"],
)
def test_it_cannot_be_changed(name: str) -> None:
    context = TraceContext(TRACE, SPAN)
    with pytest.raises(AttributeError):
        setattr(context, name, "1")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("0" * 32, SPAN), "zero_id"),
        ((TRACE, "0" * 16), "zero_id"),
        ((TRACE.upper(), SPAN), "malformed"),
        ((TRACE[1:], SPAN), "malformed"),
        ((TRACE[:-2] + " 6", SPAN), "malformed"),
        ((bytes(15), SPAN), "malformed"),
        ((None, SPAN), "malformed"),
        ((7, SPAN), "malformed"),
        ((TRACE, SPAN, 256), "malformed"),
        ((TRACE, SPAN, -1), "malformed"),
        ((TRACE, SPAN, "01"), "malformed"),
        ((TRACE, SPAN, 1, "A=1"), "tracestate"),
        ((TRACE, SPAN, 1, None), "tracestate"),
        ((TRACE, SPAN, 1, "", "no value"), "baggage"),
        ((TRACE, SPAN, 1, "", None), "baggage"),
        ((TRACE, SPAN, 1, "", "a=" + "x" * 8192), "baggage"),
    ],
)
def test_what_w3c_does_not_allow_is_refused(arguments: tuple, problem: str) -> None:
    with pytest.raises(TraceContextError) as caught:
        TraceContext(*arguments)
    assert caught.value.problem == problem
    assert problem in PROBLEMS
    assert isinstance(caught.value, ValueError)


def test_the_error_does_not_repeat_what_came_from_outside() -> None:
    with pytest.raises(TraceContextError) as caught:
        parse_traceparent("secret-value")
    assert "secret" not in str(caught.value)


def test_new_starts_a_random_trace() -> None:
    contexts = [TraceContext.new() for _ in range(200)]
    assert len({context.trace_id for context in contexts}) == 200
    assert len({context.span_id for context in contexts}) == 200
    assert {context.flags for context in contexts} == {3}
    assert {TraceContext.new(sampled=False).flags} == {2}
    assert not TraceContext.new(sampled=False).sampled


def test_child_keeps_the_trace_and_what_came_with_it() -> None:
    context = TraceContext(TRACE, SPAN, 0xFF, "a=1", "k=v")
    child = context.child()
    assert (child.trace_id, child.tracestate, child.baggage) == (TRACE, "a=1", "k=v")
    assert child.span_id != SPAN
    assert child.flags == 0x03  # reserved flags are not ours to send on
    assert context.child("b7ad6b7169203331") == context.child(bytes.fromhex("b7ad6b7169203331"))
    assert context.child("b7ad6b7169203331").span_id == "b7ad6b7169203331"
    for wrong in ("", "0" * 16, bytes(8), "x" * 16, 5):
        with pytest.raises(TraceContextError):
            context.child(wrong)


def test_child_keeps_the_random_flag_as_it_is() -> None:
    assert TraceContext(TRACE, SPAN, 1).child().flags == 1
    assert TraceContext(TRACE, SPAN, 2).child().flags == 2


def test_replace_changes_what_is_named() -> None:
    context = TraceContext(TRACE, SPAN, 1, "a=1", "k=v")
    assert context.replace() == context
    assert context.replace(flags=0).traceparent == TEXT[:-2] + "00"
    assert context.replace(tracestate="", baggage="") == TraceContext(TRACE, SPAN)
    assert context.replace(trace_id="1" * 32, span_id="2" * 16).traceparent == f"00-{'1' * 32}-{'2' * 16}-01"
    with pytest.raises(TraceContextError):
        context.replace(span_id="0" * 16)


def test_repr_holds_no_baggage() -> None:
    text = repr(TraceContext(TRACE, SPAN, 1, "a=1", "user=alice"))
    assert TEXT in text
    assert "a=1" in text
    assert "alice" not in text


def test_all_names_are_there() -> None:
    for name in spanbridge_context.__all__:
        assert getattr(spanbridge_context, name) is not None


def test_import_loads_little() -> None:
    """A device image and a short-lived tool pay for what they import: no json, typing, re, asyncio, OpenTelemetry."""
    program = """
import sys
before = set(sys.modules)
import spanbridge_context
after = set(sys.modules) - before
print(" ".join(sorted(name for name in after if not name.startswith("spanbridge_context"))))
"""
    # -S: what an environment's .pth files load is not the codec's.
    path = next(iter(spanbridge_context.__path__)).rsplit("/", 1)[0]
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {path!r})\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(result.stdout.split())
    assert not loaded & {"typing", "re", "json", "random", "asyncio", "dataclasses", "logging", "opentelemetry"}


@pytest.mark.parametrize("value", [{"tp": "x"}, {}, "tp", b"tp", 5, ["tp", "x"], [("a",)], [None]])
def test_what_is_no_list_of_pairs_is_told_by_name(value: object) -> None:
    for call in (split_user_properties, extract_user_properties):
        with pytest.raises(TypeError, match=r"^properties: "):
            call(value)


@pytest.mark.parametrize("value", [{"tp": "x"}, {}, "tp", b"tp", 5])
def test_a_context_goes_into_a_list_of_pairs_only(value: object) -> None:
    with pytest.raises(TypeError, match=r"^properties: a list of pairs wanted, not "):
        inject_user_properties(value, TraceContext.new())


def test_a_message_without_properties_has_no_context() -> None:
    context = TraceContext(TRACE, SPAN)
    assert split_user_properties(None) == (None, None, [])
    assert inject_user_properties(None, context) == [("tp", context.compact)]
    assert extract_rocketmq(None) == (None, None)
    assert inject_rocketmq(None, context) == {"traceparent": TEXT}


@pytest.mark.parametrize("properties", [iter([("a", "b")]), (("a", "b"),), [["a", "b"]]])
def test_pairs_come_in_any_sequence(properties: object) -> None:
    assert [tuple(item) for item in split_user_properties(properties)[2]] == [("a", "b")]


def test_other_carriers_are_told_by_name_as_well() -> None:
    context = TraceContext(TRACE, SPAN)
    for call in (extract_rocketmq, lambda given: inject_rocketmq(given, context)):
        with pytest.raises(TypeError, match=r"^properties: a mapping wanted, not list"):
            call([("traceparent", TEXT)])
    for call in (split_topic, extract_topic, lambda given: inject_topic(given, context)):
        with pytest.raises(TypeError, match=r"^topic: text wanted, not bytes"):
            call(b"t")
    with pytest.raises(TypeError, match=r"^payload: bytes wanted, not str"):
        split_json("{}")
    with pytest.raises(TypeError, match=r"^payload: bytes or text wanted, not dict"):
        inject_json({}, context)


def test_every_extraction_tells_the_problem() -> None:
    zero = "A" * 35
    assert extract_topic(f"t/~tp/{zero}") == (None, "zero_id")
    assert extract_user_properties([("tp", zero)]) == (None, "zero_id")
    assert extract_rocketmq({"traceparent": f"00-{'0' * 32}-{SPAN}-01"}) == (None, "zero_id")


@pytest.mark.parametrize(
    "text", ["", "A" * 35, "A" * 36, "!" * 35, "é" * 35, "_" * 34 + "4", None, 5, b"A" * 35, ["A"] * 35]
)
def test_a_compact_form_that_is_none_gives_none(text: object) -> None:
    assert context_from_compact(text) is None


@pytest.mark.parametrize("first", ["A", "B", "_"])
def test_both_readers_of_the_compact_form_agree(first: str) -> None:
    for text in (first + "Ev5LzV3s02mo86SnQ4ORzYA8GeqC6kCtwE", first + "E" + "A" * 20 + "B" * 12 + "E"):
        try:
            expected = parse_compact(text)
        except TraceContextError:
            expected = None
        assert context_from_compact(text) == expected
