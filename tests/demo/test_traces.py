"""Trees from spans, and what is missing in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from spanbridge.demo.cast import question_steps, steps
from spanbridge.demo.otlp_model import Span
from spanbridge.demo.traces import Traces

T = "a" * 32
STEPS = steps("device-v5")


def _traces(spans: list[Span]) -> Traces:
    traces = Traces()
    traces.add(spans)
    return traces


def test_a_tree_is_the_same_in_whatever_order_the_spans_came(message_spans: Callable[..., list[Span]]) -> None:
    spans = message_spans(T)
    shuffled = random.Random(1).sample(spans, len(spans))
    for order in (spans, list(reversed(spans)), shuffled):
        (root,) = _traces(order).trace(T).roots
        assert [(depth, node.span.name) for depth, node in root.walk()] == [
            (0, "read sensor"),
            (1, "send devices"),
            (2, "process"),
            (3, "send t"),
            (4, "process t"),
        ]


def test_the_batch_span_hangs_on_the_span_it_links_to(message_spans: Callable[..., list[Span]]) -> None:
    trace = _traces(message_spans(T, "c" * 32)).trace(T)
    linked = {node.span.name: [span.trace_id for span in node.linked] for node in trace.nodes if node.linked}
    assert linked == {"send t": ["b" * 32]}


def test_siblings_are_in_the_order_they_started(make_span: Callable[..., Span]) -> None:
    root = make_span("s", "root", "INTERNAL", T, end=9)
    later, sooner = (make_span("s", f"at {at}", "INTERNAL", T, root, begin=at) for at in (5, 2))
    (node,) = _traces([later, root, sooner]).trace(T).roots
    assert [child.span.name for child in node.children] == ["at 2", "at 5"]


def test_a_span_whose_parent_never_came_is_shown_as_a_root(message_spans: Callable[..., list[Span]]) -> None:
    spans = [span for span in message_spans(T) if span.name != "process"]
    trace = _traces(spans).trace(T)
    assert [root.span.name for root in trace.roots] == ["read sensor", "send t"]


def test_a_span_exported_twice_counts_once(message_spans: Callable[..., list[Span]]) -> None:
    spans = message_spans(T)
    traces = _traces(spans)
    traces.add(spans)
    assert len(traces.trace(T).nodes) == 5
    assert traces.of_service("device-v5") == [T]


def test_an_unknown_trace_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Traces().trace(T)


def test_nothing_is_missing_in_a_whole_trace(message_spans: Callable[..., list[Span]]) -> None:
    assert _traces(message_spans(T)).missing(T, STEPS) is None


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("send devices", "device-v5's producer span is missing"),
        ("process", "spanbridge's consumer span is missing"),
        ("process t", "consumer's consumer span is missing"),
    ],
)
def test_a_lost_span_is_named(message_spans: Callable[..., list[Span]], lost: str, named: str) -> None:
    spans = [span for span in message_spans(T) if span.name != lost]
    assert _traces(spans).missing(T, STEPS) == named


def test_a_lost_batch_span_is_noticed(message_spans: Callable[..., list[Span]]) -> None:
    spans = [span for span in message_spans(T) if span.kind != "CLIENT"]
    assert _traces(spans).missing(T, STEPS) == "no batch span links to spanbridge's producer span"


def test_a_destination_tells_steps_apart(question_spans: Callable[..., list[Span]]) -> None:
    traces = _traces(question_spans(T))
    assert traces.missing(T, question_steps("device-v5", "commands")) is None
    assert traces.holds(T, question_steps("device-v5", "commands")[0])
    assert not traces.holds(T, question_steps("device-v5", "meter-commands")[0])
    assert not traces.holds("b" * 32, STEPS[0])


def test_a_span_on_the_wrong_parent_breaks_the_chain(message_spans: Callable[..., list[Span]]) -> None:
    """The device's context forwarded unchanged puts the consumer below the device, past the gateway."""
    spans = message_spans(T)
    device_send = next(span for span in spans if span.name == "send devices")
    moved = [replace(span, parent_id=device_send.span_id) if span.service == "consumer" else span for span in spans]
    assert _traces(moved).missing(T, STEPS) == "consumer's consumer span is not a child of the step before"


def test_only_the_service_that_began_a_trace_owns_it(message_spans: Callable[..., list[Span]]) -> None:
    traces = _traces(message_spans("c" * 32, T))
    assert traces.of_service("device-v5") == ["c" * 32, T]
    assert traces.of_service("consumer") == []
