"""What is read of a context far larger than any honest one; what happens within the bounds is in docs/vectors."""

from __future__ import annotations

import pytest

from spanbridge_context import (
    TraceContext,
    TraceContextError,
    cap_baggage,
    extract_rocketmq,
    inject_user_properties,
    normalise_tracestate,
    parse_baggage,
    parse_tracestate,
    split_user_properties,
)

CONTEXT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
PARENT = ("traceparent", CONTEXT.traceparent)


def padded(value: str, size: int) -> str:
    return value + " " * (size - len(value))


def test_32768_characters_are_read() -> None:
    assert normalise_tracestate(padded("a=1", 32768)) == "a=1"
    assert cap_baggage(padded("a=1", 32768)) == ("a=1", True)


def test_of_more_nothing_is_kept_but_the_parent() -> None:
    with pytest.raises(TraceContextError) as caught:
        normalise_tracestate(padded("a=1", 32769))
    assert caught.value.problem == "tracestate"
    assert cap_baggage(padded("a=1", 32769)) == ("", False)
    properties = {"traceparent": CONTEXT.traceparent, "tracestate": "a=1", "baggage": padded("k=v", 32769)}
    assert extract_rocketmq(properties) == (CONTEXT.replace(tracestate="a=1"), "baggage")
    properties = {"traceparent": CONTEXT.traceparent, "tracestate": padded("a=1", 32769), "baggage": "k=v"}
    assert extract_rocketmq(properties) == (CONTEXT.replace(baggage="k=v"), "tracestate")


@pytest.mark.parametrize("name", ["tracestate", "baggage"])
def test_several_values_share_the_bound(name: str) -> None:
    half = padded("a=1", 16383)
    assert split_user_properties([PARENT, (name, half), (name, half)])[:2] == (
        CONTEXT.replace(**{name: "a=1,a=1"}),
        None,
    )
    assert split_user_properties([PARENT, (name, half), (name, half), (name, "b=2")]) == (CONTEXT, name, [])


def test_baggage_over_its_limits_is_not_taken_apart() -> None:
    for value in ("a=" + "x" * 8191, ",".join(["a=1"] * 181)):
        with pytest.raises(TraceContextError) as caught:
            parse_baggage(value)
        assert caught.value.problem == "baggage"


def test_many_properties_of_the_names() -> None:
    ordinary = [("tp", "4.7")] * 20000
    assert split_user_properties(ordinary) == (None, None, ordinary)
    assert split_user_properties([*ordinary, PARENT]) == (CONTEXT, None, ordinary)
    assert inject_user_properties(ordinary, CONTEXT) == [*ordinary, ("tp", CONTEXT.compact)]
    assert split_user_properties([PARENT] * 20000) == (None, "duplicate", [])
    assert split_user_properties([("tp", CONTEXT.compact)] * 20000) == (None, "duplicate", [])


def test_blank_members_of_baggage_are_nothing() -> None:
    assert parse_baggage(" , a=1,\t,b=2 ,") == [("a", "1", ""), ("b", "2", "")]
    assert cap_baggage(" , a=1,\t,b=2 ,") == ("a=1,b=2", True)


@pytest.mark.parametrize("character", ["\x00", "\x1f", "\t", "\x7f", "\x80", "\u00e9", "\n"])
def test_what_is_no_printable_ascii_is_in_no_value(character: str) -> None:
    with pytest.raises(TraceContextError):
        parse_tracestate(f"a=b{character}c")
    with pytest.raises(TraceContextError):
        parse_baggage(f"a=b{character}c")
    with pytest.raises(TraceContextError):
        parse_baggage("a=b c")
