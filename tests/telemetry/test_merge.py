"""Metrics of several workers as those of one gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path

from spanbridge.telemetry.metrics.merge import RULES, Merger, as_wire, from_wire, merged
from spanbridge.telemetry.metrics.points import HistogramPoint, Kind, Metric, NumberPoint

GATEWAY = Path(__file__).parents[2] / "gateway" / "spanbridge"


def number(name: str, value: float, kind: Kind = "counter", **labels: str) -> Metric:
    return Metric(name, "what it is", "s", kind, [NumberPoint(labels, 10, 20, value)])


def histogram(counts: list[int], total: float, least: float, most: float, start: int = 10) -> Metric:
    point = HistogramPoint({"topic": "t"}, start, 20, counts, (1.0, 2.0), total, least, most)
    return Metric("took", "how long", "s", "histogram", [point])


def only(metrics: list[Metric]) -> NumberPoint | HistogramPoint:
    (metric,) = metrics
    (point,) = metric.points
    return point


def value(metrics: list[Metric]) -> float:
    point = only(metrics)
    assert isinstance(point, NumberPoint)
    return point.value


def test_counters_add_up_by_their_attributes() -> None:
    (found,) = merged({"1": [number("sent", 3, topic="a")], "2": [number("sent", 4, topic="a")]})
    assert [(dict(one.attributes), one.value) for one in found.points if isinstance(one, NumberPoint)] == [
        ({"topic": "a"}, 7)
    ]
    (found,) = merged({"1": [number("sent", 3, topic="a")], "2": [number("sent", 4, topic="b")]})
    assert len(found.points) == 2


def test_distributions_add_up() -> None:
    point = only(
        merged({"1": [histogram([1, 2, 3], 9.5, 0.5, 7, start=5)], "2": [histogram([0, 1, 0], 1.5, 1.5, 1.5)]})
    )
    assert point == HistogramPoint({"topic": "t"}, 5, 20, [1, 3, 3], (1.0, 2.0), 11.0, 0.5, 7)


def test_gauges_by_what_they_mean() -> None:
    def both(name: str, one: float, two: float) -> float:
        return value(merged({"1": [number(name, one, "gauge")], "2": [number(name, two, "gauge")]}))

    assert both("spanbridge.in_flight", 3, 4) == 7
    assert both("spanbridge.oldest_unacknowledged.age", 3, 4) == 4
    assert both("spanbridge.spool.time_left", 3, 4) == 3
    assert both("spanbridge.source.up", 1, 0) == 0
    assert both("spanbridge.paused", 1, 0) == 1


def test_what_cannot_be_added_is_shown_for_each_worker() -> None:
    for name, kind in (("process.cpu", "counter"), ("process.start_time", "gauge"), ("spanbridge.new", "gauge")):
        (found,) = merged({"1": [number(name, 3, kind)], "supervisor": [number(name, 4, kind)]})  # type: ignore[arg-type]
        assert [one.attributes for one in found.points] == [{"worker": "1"}, {"worker": "supervisor"}]


def test_each_gauge_of_the_gateway_has_a_rule() -> None:
    """One that has none is shown for each worker, which is seldom meant."""
    texts = [file.read_text() for file in GATEWAY.rglob("*.py") if "gauge(" in file.read_text()]
    names = {name for text in texts for name in re.findall(r'"(spanbridge\.[a-z_.]+)"', text)}
    shown = {name for name in names if re.search(r"\.(age|up|size|paused|in_flight|messages|limit|time_left)$", name)}
    assert shown, "the names are found"
    assert {name for name in shown if not name.startswith("spanbridge.rocketmq.consumer.")} <= set(RULES)


def test_sums_never_get_smaller_when_a_worker_dies() -> None:
    merger = Merger()
    merger.take("1", [number("sent", 100), number("spanbridge.in_flight", 5, "gauge"), number("process.cpu", 9)])
    merger.take("2", [number("sent", 10)])
    merger.ended("1")
    assert value([one for one in merger.read() if one.name == "sent"]) == 110
    assert [one.name for one in merger.read()] == ["sent"], "it holds nothing any more, and its process is gone"
    merger.take("1", [number("sent", 1)])
    assert value(merger.read()) == 111
    merger.ended("1")
    merger.ended("2")
    assert value(merger.read()) == 111


def test_metrics_pass_through_json() -> None:
    metrics = [
        number("sent", 3, topic="a"),
        number("age", 0.5, "gauge"),
        histogram([1, 2, 3], 9.5, float("inf"), float("-inf")),
    ]
    again = from_wire(json.loads(json.dumps(as_wire(metrics))))
    assert as_wire(again) == as_wire(metrics)
    assert merged({"": again}) == merged({"": metrics}) or as_wire(merged({"": again})) == as_wire(
        merged({"": metrics})
    )
