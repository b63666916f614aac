"""Reading the metrics: counters and histograms of the hot path, and gauges that are asked.

The SDK's meter is not loaded for this: it would ask us for numbers that we keep anyway, has no histogram that can be
asked, and takes memory that a gateway on a small machine does not have (docs/adr/0054).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from spanbridge.telemetry import faults
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram, Labels, Series
from spanbridge.telemetry.metrics.points import HistogramPoint, Metric, NumberPoint

Reading = float | Iterable[tuple[float, Mapping[str, str]]]
"""What a gauge's callback returns: a number, or numbers with their attributes."""


@dataclass(frozen=True, slots=True)
class Temporality:
    """Which kinds of metrics a reader wants as the growth since its last reading, not since the start."""

    counters_delta: bool = False
    histograms_delta: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    """A number kept elsewhere."""

    name: str
    unit: str
    description: str
    read: Callable[[], Reading]
    grows: bool

    def numbers(self) -> list[tuple[dict[str, object], float]]:
        """The numbers now; none when the callback fails, which leaves out this metric and no other."""
        with faults.told(f"the metric {self.name} could not be read"):
            reading = self.read()
            if isinstance(reading, int | float):
                return [({}, reading)]
            return [(dict(labels), value) for value, labels in reading]
        return []


@dataclass(slots=True)
class _Before:
    """What a delta reader saw last time: sums by metric and attributes, and histograms."""

    sums: dict[tuple[str, frozenset[tuple[str, object]]], tuple[float, int]] = field(default_factory=dict)
    histograms: dict[tuple[str, Labels], tuple[list[int], float, int]] = field(default_factory=dict)


class MetricReader:
    """Reads everything on demand."""

    def __init__(self, instruments: Instruments, temporality: Temporality) -> None:
        self._instruments = instruments
        self._temporality = temporality
        self._before = _Before()

    def read(self) -> list[Metric]:
        """All metrics that have a value now."""
        now_ns = time.time_ns()
        found = [self._counter(counter, now_ns) for counter in self._instruments.counters]
        found += [self._asked(asked, now_ns) for asked in self._instruments.asked]
        found += [self._histogram(histogram, now_ns) for histogram in self._instruments.histograms]
        return [metric for metric in found if metric.points]

    def _counter(self, counter: HotCounter, now_ns: int) -> Metric:
        numbers: list[tuple[dict[str, object], float]] = [(dict(key), value) for key, value in counter.values.items()]
        return self._sum(counter.name, counter.description, counter.unit, numbers, now_ns)

    def _asked(self, asked: _Asked, now_ns: int) -> Metric:
        if asked.grows:
            return self._sum(asked.name, asked.description, asked.unit, asked.numbers(), now_ns)
        start_ns = self._instruments.start_ns
        points = [NumberPoint(labels, start_ns, now_ns, value) for labels, value in asked.numbers()]
        return Metric(asked.name, asked.description, asked.unit, "gauge", points)

    def _sum(
        self, name: str, description: str, unit: str, numbers: list[tuple[dict[str, object], float]], now_ns: int
    ) -> Metric:
        delta, start_ns = self._temporality.counters_delta, self._instruments.start_ns
        points = []
        for labels, value in numbers:
            before, since_ns = 0.0, start_ns
            if delta:
                key = (name, frozenset(labels.items()))
                before, since_ns = self._before.sums.get(key, (0, start_ns))
                self._before.sums[key] = (value, now_ns)
            points.append(NumberPoint(labels, since_ns, now_ns, value - before if delta else value))
        return Metric(name, description, unit, "counter", points, delta)

    def _histogram(self, histogram: HotHistogram, now_ns: int) -> Metric:
        points = [
            point
            for labels, series in histogram.series.items()
            if (point := self._distribution(histogram, labels, series, now_ns)) is not None
        ]
        delta = self._temporality.histograms_delta
        return Metric(histogram.name, histogram.description, histogram.unit, "histogram", points, delta)

    def _distribution(
        self, histogram: HotHistogram, labels: Labels, series: Series, now_ns: int
    ) -> HistogramPoint | None:
        counts, total, start_ns = list(series.counts), series.sum, series.start_ns
        least, most = series.minimum, series.maximum
        if self._temporality.histograms_delta:
            key = (histogram.name, labels)
            before, before_sum, before_ns = self._before.histograms.get(key, ([0] * len(counts), 0.0, start_ns))
            self._before.histograms[key] = (counts, total, now_ns)
            counts = [now - then for now, then in zip(counts, before, strict=True)]
            total, start_ns = total - before_sum, before_ns
            if not any(counts):
                return None
            # Of the interval, as the rest is. There is one delta reader at most, and Prometheus shows neither.
            series.minimum, series.maximum = float("inf"), float("-inf")
        return HistogramPoint(dict(labels), start_ns, now_ns, counts, histogram.bounds, total, least, most)


class Instruments:
    """All that is measured. Of two metrics of one name the first stays."""

    def __init__(self) -> None:
        self.start_ns = time.time_ns()
        self.counters: list[HotCounter] = []
        self.histograms: list[HotHistogram] = []
        self.asked: list[_Asked] = []
        self._names: set[str] = set()

    def reader(self, temporality: Temporality | None = None) -> MetricReader:
        """One more reader."""
        return MetricReader(self, temporality or Temporality())

    def histogram(self, histogram: HotHistogram) -> None:
        """Export a histogram."""
        if self._is_new(histogram.name):
            self.histograms.append(histogram)

    def counter(self, counter: HotCounter) -> None:
        """Export a counter."""
        if self._is_new(counter.name):
            self.counters.append(counter)

    def gauge(self, name: str, read: Callable[[], Reading], *, unit: str = "", description: str = "") -> None:
        """Export what ``read`` returns whenever metrics are read. It must be quick."""
        if self._is_new(name):
            self.asked.append(_Asked(name, unit, description, read, grows=False))

    def sum(self, name: str, read: Callable[[], Reading], *, unit: str = "", description: str = "") -> None:
        """The same for a number that only grows and is kept elsewhere, such as CPU time."""
        if self._is_new(name):
            self.asked.append(_Asked(name, unit, description, read, grows=True))

    def _is_new(self, name: str) -> bool:
        if name in self._names:
            return False
        self._names.add(name)
        return True
