"""Whether the demonstration succeeded: no message and no span may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from spanbridge.demo.cast import Cast
from spanbridge.demo.otlp_model import Span
from spanbridge.demo.play import judge
from spanbridge.demo.traces import Traces

IDS = ("a" * 32, "c" * 32, "d" * 32)
ALL = [("sensor-1", 1), ("sensor-1", 2), ("sensor-1", 3)]


def _traces(spans: list[Span]) -> Traces:
    traces = Traces()
    traces.add(spans)
    return traces


def test_everything_arrived(cast: Cast, message_spans: Callable[..., list[Span]]) -> None:
    outcome = judge(cast, ALL, _traces(message_spans(*IDS)))
    assert outcome.ok
    (tally,) = outcome.tallies
    assert (tally.sent, tally.received, tally.lost, tally.complete) == (3, 3, 0, 3)
    assert outcome.latencies_ms == [4.0, 4.0, 4.0]
    assert outcome.duplicates == 0


def test_one_trace_of_each_kind_is_shown(cast: Cast, message_spans: Callable[..., list[Span]]) -> None:
    outcome = judge(cast, ALL, _traces(message_spans(*IDS)))
    assert [(title.split(" · ")[1][:14], trace.trace_id) for title, trace in outcome.shown] == [
        ("context in use", IDS[0]),
        ("one of a burst", IDS[1]),
    ]


def test_a_lost_message_is_a_problem(cast: Cast, message_spans: Callable[..., list[Span]]) -> None:
    outcome = judge(cast, ALL[:2], _traces(message_spans(*IDS)))
    assert not outcome.ok
    assert outcome.tallies[0].lost == 1
    assert outcome.problems == ["MQTT v5 device: 1 of 3 messages did not arrive"]


def test_a_lost_span_is_a_problem(cast: Cast, message_spans: Callable[..., list[Span]]) -> None:
    spans = [s for s in message_spans(*IDS) if (s.trace_id, s.service) != (IDS[2], "consumer")]
    outcome = judge(cast, ALL, _traces(spans))
    assert not outcome.ok
    assert outcome.tallies[0].complete == 2
    assert outcome.problems == ["MQTT v5 device: 1 traces are not whole: consumer's consumer span is missing"]


def test_devices_whose_spans_never_came_are_a_problem(cast: Cast) -> None:
    outcome = judge(cast, ALL, Traces())
    assert outcome.problems == ["MQTT v5 device: 3 traces are not whole: the device's own spans did not arrive"]
    assert outcome.shown == []


def test_a_message_that_arrived_twice_is_told_and_no_problem(
    cast: Cast, message_spans: Callable[..., list[Span]]
) -> None:
    outcome = judge(cast, [*ALL, ALL[0]], _traces(message_spans(*IDS)))
    assert outcome.ok
    assert outcome.duplicates == 1


def test_a_reading_of_another_device_does_not_stand_in(cast: Cast, message_spans: Callable[..., list[Span]]) -> None:
    outcome = judge(cast, [*ALL[:2], ("sensor-2", 3)], _traces(message_spans(*IDS)))
    assert outcome.tallies[0].received == 2


def test_services_are_in_the_order_a_message_meets_them(cast: Cast) -> None:
    other = replace(cast.devices[0], service="meter")
    assert Cast(devices=(*cast.devices, other), consumer=[]).services == (
        "device-v5",
        "meter",
        "spanbridge",
        "consumer",
    )
