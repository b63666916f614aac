"""Counters and histograms of the hot path: a dictionary entry a record, read when metrics are collected."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from spanbridge.telemetry import faults

Labels = tuple[tuple[str, str | int], ...]
"""Attributes of one time series, as pairs. Low cardinality: never a raw topic."""

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bucket bounds in seconds that semantic conventions 1.44 ask of the messaging duration metrics."""


SERIES = 500
"""Attribute sets that one metric keeps apart: a template may name RocketMQ topics after a level that devices choose."""

DECLARED = SERIES // 4
"""Attribute sets up to which series are made before anything is counted: the others are for what happens."""

OVERFLOW: Labels = (("otel.metric.overflow", True),)
"""Where the rest is counted (OpenTelemetry specification, "Cardinality limits")."""


class HotCounter:
    """A monotonic sum per attribute set. ``unit`` is UCUM."""

    def __init__(self, name: str, unit: str, description: str) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.values: dict[Labels, int] = {}

    def add(self, labels: Labels, count: int = 1) -> None:
        """Count. Never raises: a message is worth more than its metric."""
        try:
            values = self.values
            if labels not in values and len(values) >= SERIES:
                labels = OVERFLOW
            values[labels] = values.get(labels, 0) + count
        except Exception as error:  # noqa: BLE001
            faults.tell(f"the counter {self.name} could not be changed", error)

    def touch(self, labels: Labels) -> None:
        """Have the series of ``labels`` at 0, unless it counts already: a rate needs a value before the first event."""
        self.add(labels, 0)

    def declare(self, rows: Iterable[Labels]) -> None:
        """Touch all of them, or none where the counter would then have more than :data:`DECLARED` series."""
        fresh = [labels for labels in dict.fromkeys(rows) if labels not in self.values]
        if len(self.values) + len(fresh) <= DECLARED:
            for labels in fresh:
                self.touch(labels)


class Series:
    """The distribution of one attribute set: ``counts[i]`` is of values up to and including ``bounds[i]``."""

    __slots__ = ("count", "counts", "maximum", "minimum", "start_ns", "sum")

    def __init__(self, buckets: int, start_ns: int) -> None:
        self.counts = [0] * buckets
        self.count = 0
        self.sum = 0.0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.start_ns = start_ns


class HotHistogram:
    """A histogram with explicit bucket bounds per attribute set. ``unit`` is UCUM."""

    def __init__(
        self,
        name: str,
        unit: str,
        description: str,
        bounds: Sequence[float] = DURATIONS,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.bounds = tuple(bounds)
        self.series: dict[Labels, Series] = {}
        self._clock = clock

    def record(self, labels: Labels, value: float, count: int = 1) -> None:
        """Record a value that ``count`` messages share. Below zero, as when the clock was set back, it is zero.

        Never raises: a message is worth more than its metric.
        """
        try:
            value = max(value, 0.0)
            series = self.series.get(labels)
            if series is None:
                series = self._series(labels)
            series.counts[bisect_left(self.bounds, value)] += count
            series.count += count
            series.sum += value * count
            series.minimum = min(series.minimum, value)
            series.maximum = max(series.maximum, value)
        except Exception as error:  # noqa: BLE001
            faults.tell(f"the histogram {self.name} could not be changed", error)

    def _series(self, labels: Labels) -> Series:
        labels = labels if len(self.series) < SERIES else OVERFLOW
        series = self.series.get(labels)
        if series is None:
            series = self.series[labels] = Series(len(self.bounds) + 1, self._clock())
        return series
