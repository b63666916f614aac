"""Whether the demonstration succeeded: no message and no span may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from spanbridge.demo.cast import Cast
from spanbridge.demo.otlp_model import Span
from spanbridge.demo.play import judge
from spanbridge.demo.traces import Traces

IDS = ("a" * 32, "c" * 32, "d" * 32)
QUESTION = "f" * 32
READINGS = [("sensor-1", 1), ("sensor-1", 2), ("sensor-1", 3)]
ANSWERS = [("sensor-1", 1)]
ALL = {"consumer": READINGS, "backend": ANSWERS}

Make = Callable[..., list[Span]]


@pytest.fixture
def spans(message_spans: Make, question_spans: Make) -> list[Span]:
    """All that belongs to three readings and a question."""
    return [*message_spans(*IDS), *question_spans(QUESTION)]


def _traces(spans: list[Span]) -> Traces:
    traces = Traces()
    traces.add(spans)
    return traces


def test_everything_arrived(cast: Cast, spans: list[Span]) -> None:
    outcome = judge(cast, ALL, _traces(spans))
    assert outcome.ok
    tallies = [(tally.sent, tally.received, tally.lost, tally.complete) for tally in outcome.tallies]
    assert tallies == [(3, 3, 0, 3), (1, 1, 0, 1)]
    assert outcome.latencies_ms == {"device → consumer": [4.0, 4.0, 4.0], "question → answer": [7.0]}
    assert outcome.duplicates == 0


def test_one_trace_of_each_kind_is_shown(cast: Cast, spans: list[Span]) -> None:
    outcome = judge(cast, ALL, _traces(spans))
    assert [(title.split(" · ")[1][:14], trace.trace_id) for title, trace in outcome.shown] == [
        ("context in use", IDS[0]),
        ("one of a burst", IDS[1]),
        ("command and an", QUESTION),
    ]


def test_a_lost_message_is_a_problem(cast: Cast, spans: list[Span]) -> None:
    outcome = judge(cast, {**ALL, "consumer": READINGS[:2]}, _traces(spans))
    assert not outcome.ok
    assert outcome.tallies[0].lost == 1
    assert outcome.problems == ["MQTT v5 device: 1 of 3 messages did not arrive"]


def test_a_question_without_an_answer_is_a_problem(cast: Cast, spans: list[Span]) -> None:
    outcome = judge(cast, {"consumer": READINGS}, _traces(spans))
    assert outcome.problems == ["MQTT v5 device, asked: 1 of 1 messages did not arrive"]


def test_a_lost_span_is_a_problem(cast: Cast, spans: list[Span]) -> None:
    outcome = judge(cast, ALL, _traces([s for s in spans if (s.trace_id, s.service) != (IDS[2], "consumer")]))
    assert not outcome.ok
    assert outcome.tallies[0].complete == 2
    assert outcome.problems == ["MQTT v5 device: 1 traces are not whole: consumer's consumer span is missing"]


def test_an_answer_in_a_trace_of_its_own_is_a_problem(cast: Cast, spans: list[Span]) -> None:
    """What a device would do that does not read the command's context."""
    moved = [
        replace(span, trace_id="9" * 32, parent_id="") if span.name == "send devices/{device}/answers" else span
        for span in spans
    ]
    outcome = judge(cast, ALL, _traces(moved))
    assert outcome.problems == [
        "MQTT v5 device, asked: 1 traces are not whole: device-v5's producer span is missing"
    ]  # fmt: skip


def test_devices_whose_spans_never_came_are_a_problem(cast: Cast) -> None:
    outcome = judge(cast, ALL, Traces())
    assert outcome.problems == [
        "MQTT v5 device: 3 traces are not whole: spans of device-v5 did not arrive",
        "MQTT v5 device, asked: 1 traces are not whole: spans of backend did not arrive",
    ]
    assert outcome.shown == []


def test_questions_by_another_topic_do_not_stand_in(cast: Cast, message_spans: Make, question_spans: Make) -> None:
    traces = _traces([*message_spans(*IDS), *question_spans(QUESTION, "meter-commands")])
    assert judge(cast, ALL, traces).tallies[1].complete == 0


def test_a_message_that_arrived_twice_is_told_and_no_problem(cast: Cast, spans: list[Span]) -> None:
    outcome = judge(cast, {"consumer": [*READINGS, READINGS[0]], "backend": ANSWERS * 2}, _traces(spans))
    assert outcome.ok
    assert outcome.duplicates == 2


def test_a_reading_of_another_device_does_not_stand_in(cast: Cast, spans: list[Span]) -> None:
    outcome = judge(cast, {**ALL, "consumer": [*READINGS[:2], ("sensor-2", 3)]}, _traces(spans))
    assert outcome.tallies[0].received == 2


def test_services_are_in_the_order_a_message_meets_them(cast: Cast) -> None:
    other = replace(cast.devices[0], service="meter")
    more = replace(cast, devices=(*cast.devices, other))
    assert more.services == ("device-v5", "meter", "spanbridge", "consumer", "backend")
