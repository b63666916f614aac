"""Metrics through the SDK, with the hot path's histograms merged in when they are read.

Counters and gauges are observable instruments of the SDK: it asks us for the numbers we keep anyway. The SDK has no
observable histogram, so a reader of ours adds those to what the SDK collected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from spanbridge.telemetry import faults
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram, Labels, Series

Reading = float | Iterable[tuple[float, Mapping[str, str]]]
"""What a gauge's callback returns: a number, or numbers with their attributes."""

_Previous = dict[tuple[str, Labels], tuple[list[int], float, int]]


class HotReader(MetricReader):
    """Reads everything on demand; :meth:`read` returns data of one resource."""

    def __init__(
        self,
        histograms: list[HotHistogram],
        resource: Resource,
        scope: InstrumentationScope,
        preferred_temporality: dict[type, AggregationTemporality] | None = None,
        preferred_aggregation: dict[type, Any] | None = None,
    ) -> None:
        super().__init__(preferred_temporality=preferred_temporality, preferred_aggregation=preferred_aggregation)
        wanted = (preferred_temporality or {}).get(HistogramInstrument, AggregationTemporality.CUMULATIVE)
        self._delta = wanted is AggregationTemporality.DELTA
        self._histograms = histograms
        self._resource = resource
        self._scope = scope
        self._collected: MetricsData | None = None
        self._previous: _Previous = {}

    def read(self) -> MetricsData:
        """Collect now."""
        self._collected = None
        self.collect()
        collected: MetricsData | None = self._collected
        hot = [metric for histogram in self._histograms if (metric := self._metric(histogram, time.time_ns()))]
        return self._merge(collected, hot)

    def _merge(self, collected: MetricsData | None, hot: list[Metric]) -> MetricsData:
        resources = list(collected.resource_metrics) if collected else []
        if not hot:
            return MetricsData(resources)
        if not resources:
            scope = ScopeMetrics(self._scope, hot, self._scope.schema_url or "")
            return MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])
        first = resources[0]
        scopes = list(first.scope_metrics)
        for at, scope in enumerate(scopes):
            if scope.scope == self._scope:
                scopes[at] = replace(scope, metrics=[*scope.metrics, *hot])
                break
        else:
            scopes.append(ScopeMetrics(self._scope, hot, self._scope.schema_url or ""))
        return MetricsData([replace(first, scope_metrics=scopes), *resources[1:]])

    def _metric(self, histogram: HotHistogram, now_ns: int) -> Metric | None:
        points = [
            point
            for labels, series in histogram.series.items()
            if (point := self._point(histogram, labels, series, now_ns)) is not None
        ]
        if not points:
            return None
        temporality = AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE
        return Metric(histogram.name, histogram.description, histogram.unit, Histogram(points, temporality))

    def _point(self, histogram: HotHistogram, labels: Labels, series: Series, now_ns: int) -> HistogramDataPoint | None:
        counts, total, start_ns = list(series.counts), series.sum, series.start_ns
        least, most = series.minimum, series.maximum
        if self._delta:
            key = (histogram.name, labels)
            before, before_sum, before_ns = self._previous.get(key, ([0] * len(counts), 0.0, start_ns))
            self._previous[key] = (counts, total, now_ns)
            counts = [now - then for now, then in zip(counts, before, strict=True)]
            total, start_ns = total - before_sum, before_ns
            if not any(counts):
                return None
            # Of the interval, as the rest is. There is one delta reader at most, and Prometheus shows neither.
            series.minimum, series.maximum = float("inf"), float("-inf")
        return HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=start_ns,
            time_unix_nano=now_ns,
            count=sum(counts),
            sum=total,
            bucket_counts=counts,
            explicit_bounds=histogram.bounds,
            min=least,
            max=most,
        )

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> None:
        self._collected = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing is held."""


class Instruments:
    """The SDK's meter provider with our counters, histograms and gauges in it."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self.resource = resource
        self.scope = scope
        self._histograms: list[HotHistogram] = []
        self._readers: list[HotReader] = []
        self._provider: MeterProvider | None = None
        self._meter: Meter | None = None
        self._names: set[str] = set()

    def reader(self, **preferences: Any) -> HotReader:
        """One more reader. All readers come before the first instrument.

        :raises RuntimeError: they did not.
        """
        if self._provider is not None:
            raise RuntimeError("instruments exist already")
        reader = HotReader(self._histograms, self.resource, self.scope, **preferences)
        self._readers.append(reader)
        return reader

    @property
    def meter(self) -> Meter:
        """The SDK's meter, for instruments outside the hot path."""
        if self._meter is None:
            self._provider = MeterProvider(self._readers, self.resource, shutdown_on_exit=False)
            self._meter = self._provider.get_meter(
                self.scope.name, self.scope.version, schema_url=self.scope.schema_url
            )
        return self._meter

    def histogram(self, histogram: HotHistogram) -> None:
        """Export a histogram."""
        self._names.add(histogram.name)
        self._histograms.append(histogram)

    def counter(self, counter: HotCounter) -> None:
        """Export a counter. One of the same name that is there already stays, and this one is not exported."""
        if counter.name in self._names:
            return
        self._names.add(counter.name)

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, dict(labels)) for labels, value in counter.values.items()]

        self.meter.create_observable_counter(counter.name, [observe], counter.unit, counter.description)

    def gauge(self, name: str, read: Callable[[], Reading], *, unit: str = "", description: str = "") -> None:
        """Export what ``read`` returns whenever metrics are collected. It must be quick."""
        self._names.add(name)
        self.meter.create_observable_gauge(name, [_observing(name, read)], unit, description)

    def sum(self, name: str, read: Callable[[], Reading], *, unit: str = "", description: str = "") -> None:
        """The same for a number that only grows and is kept elsewhere, such as CPU time."""
        self._names.add(name)
        self.meter.create_observable_counter(name, [_observing(name, read)], unit, description)

    def shutdown(self) -> None:
        """End the provider. Idempotent."""
        if self._provider is not None:
            self._provider.shutdown()
            self._provider = None


def _observing(name: str, read: Callable[[], Reading]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """``read`` as the SDK calls it; a reading that fails leaves out this metric and no other."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        with faults.told(f"the metric {name} could not be read"):
            reading = read()
            if isinstance(reading, int | float):
                return [Observation(reading)]
            return [Observation(value, dict(labels)) for value, labels in reading]
        return []

    return observe
