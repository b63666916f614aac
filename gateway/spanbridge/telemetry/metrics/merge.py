"""Metrics of several workers as those of one gateway, and the form in which a worker hands over its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spanbridge.telemetry.metrics.points import HistogramPoint, Metric, NumberPoint, Point

Wire = list[Any]
"""Metrics as JSON has them."""

# What one number for all workers means, by gauge. Those that are not here, and what the operating system tells of a
# process, are shown for each worker.
_SUM = (
    "spanbridge.in_flight",
    "spanbridge.downlink.in_flight",
    "spanbridge.spool.messages",
    "spanbridge.spool.size",
    "spanbridge.spool.limit",
    "spanbridge.spool.rejected.messages",
    "spanbridge.spool.rejected.size",
    "spanbridge.spool.rejected.limit",
    "spanbridge.telemetry.buffer",
)
_MOST = (
    "spanbridge.build_info",
    "spanbridge.downlink.oldest_unacknowledged.age",
    "spanbridge.downlink.paused",
    "spanbridge.oldest_unacknowledged.age",
    "spanbridge.paused",
    "spanbridge.spool.oldest.age",
    "spanbridge.worker.up",
)
_LEAST = (
    "spanbridge.consumer.up",
    "spanbridge.publisher.up",
    "spanbridge.sink.up",
    "spanbridge.source.up",
    "spanbridge.spool.time_left",
)
_OF_A_PROCESS = "process."
_LAG = "spanbridge.rocketmq.consumer."
"""Worker 1 alone reads the lag, so there is nothing to add up."""

Rule = Callable[[Sequence[float]], float]
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_SUM, sum),
    **dict.fromkeys(_MOST, max),
    **dict.fromkeys(_LEAST, min),
}

_Key = frozenset[tuple[str, Any]]


def as_wire(metrics: Sequence[Metric]) -> Wire:
    """Metrics as JSON can have them."""
    return [
        [one.name, one.description, one.unit, one.kind, [_point_as_wire(point) for point in one.points]]
        for one in metrics
    ]


def from_wire(wire: Wire) -> list[Metric]:
    """The opposite of :func:`as_wire`."""
    return [
        Metric(name, description, unit, kind, [_point_from_wire(point) for point in points])
        for name, description, unit, kind, points in wire
    ]


def _point_as_wire(point: Point) -> list[Any]:
    head = [dict(point.attributes), point.start_ns, point.time_ns]
    if isinstance(point, HistogramPoint):
        return [*head, list(point.counts), list(point.bounds), point.sum, point.minimum, point.maximum]
    return [*head, point.value]


def _point_from_wire(fields: list[Any]) -> Point:
    if len(fields) > 4:
        return HistogramPoint(*fields)
    return NumberPoint(*fields)


class Merger:
    """Adds up what workers read. What a worker had counted when it ended stays counted: a sum never gets smaller."""

    def __init__(self) -> None:
        self._latest: dict[str, list[Metric]] = {}
        self._ended: list[Metric] = []

    def take(self, worker: str, metrics: list[Metric]) -> None:
        """The latest reading of a worker."""
        self._latest[worker] = metrics

    def ended(self, worker: str) -> None:
        """A worker is gone; what it has counted since its last reading is not known."""
        latest = self._latest.pop(worker, [])
        counted = [one for one in latest if one.kind != "gauge" and not one.name.startswith(_OF_A_PROCESS)]
        self._ended = merged({"": self._ended, worker: counted})

    def read(self) -> list[Metric]:
        """The metrics of all."""
        return merged({"": self._ended, **self._latest})


def merged(readings: Mapping[str, Sequence[Metric]]) -> list[Metric]:
    """The metrics of several workers, given by their names, as those of one gateway."""
    families: dict[tuple[str, str], list[tuple[str, Metric]]] = {}
    for worker, metrics in readings.items():
        for metric in metrics:
            families.setdefault((metric.name, metric.kind), []).append((worker, metric))
    return [_merged(family) for family in families.values()]


def _merged(family: list[tuple[str, Metric]]) -> Metric:
    first = family[0][1]
    rule = _rule(first)
    points: list[Point] = []
    if rule is None:
        for worker, metric in family:
            points += [_labelled(point, worker) for point in metric.points]
    else:
        together: dict[_Key, list[Point]] = {}
        for _, metric in family:
            for point in metric.points:
                together.setdefault(frozenset(point.attributes.items()), []).append(point)
        points = [_one_of(same, rule) for same in together.values()]
    return Metric(first.name, first.description, first.unit, first.kind, points)


def _rule(metric: Metric) -> Rule | None:
    if metric.name.startswith(_OF_A_PROCESS):
        return None
    if metric.kind != "gauge":
        return sum
    return max if metric.name.startswith(_LAG) else RULES.get(metric.name)


def _labelled(point: Point, worker: str) -> Point:
    assert isinstance(point, NumberPoint)
    return NumberPoint({**point.attributes, "worker": worker}, point.start_ns, point.time_ns, point.value)


def _one_of(points: list[Point], rule: Rule) -> Point:
    first, start, now = points[0], min(one.start_ns for one in points), max(one.time_ns for one in points)
    if not isinstance(first, HistogramPoint):
        return NumberPoint(
            first.attributes, start, now, rule([one.value for one in points if isinstance(one, NumberPoint)])
        )
    same = [one for one in points if isinstance(one, HistogramPoint) and list(one.bounds) == list(first.bounds)]
    return HistogramPoint(
        first.attributes,
        start,
        now,
        [sum(counts) for counts in zip(*(one.counts for one in same), strict=True)],
        first.bounds,
        sum(one.sum for one in same),
        min(one.minimum for one in same),
        max(one.maximum for one in same),
    )
