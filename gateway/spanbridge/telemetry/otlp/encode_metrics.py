"""A reading of the metrics as an OTLP request. Loads the SDK's metrics, which nothing else here needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from spanbridge.telemetry.metrics.points import HistogramPoint, Metric, MetricScope, NumberPoint


def encode(metrics: Sequence[Metric], resource: Resource, scope: MetricScope) -> bytes:
    """A serialised ``ExportMetricsServiceRequest``."""
    instrumentation = InstrumentationScope(scope.name, scope.version, scope.schema_url)
    scoped = sdk.ScopeMetrics(instrumentation, [_metric(metric) for metric in metrics], scope.schema_url)
    data = sdk.MetricsData([sdk.ResourceMetrics(resource, [scoped], resource.schema_url)])
    return bytes(encode_metrics(data).SerializeToString())


def _metric(metric: Metric) -> sdk.Metric:
    temporality = sdk.AggregationTemporality.DELTA if metric.delta else sdk.AggregationTemporality.CUMULATIVE
    if metric.kind == "histogram":
        points = [_distribution(cast("HistogramPoint", point)) for point in metric.points]
        data: sdk.Histogram | sdk.Sum | sdk.Gauge = sdk.Histogram(points, temporality)
    else:
        numbers = [_number(cast("NumberPoint", point)) for point in metric.points]
        data = sdk.Sum(numbers, temporality, is_monotonic=True) if metric.kind == "counter" else sdk.Gauge(numbers)
    return sdk.Metric(metric.name, metric.description, metric.unit, data)


def _number(point: NumberPoint) -> sdk.NumberDataPoint:
    return sdk.NumberDataPoint(dict(point.attributes), point.start_ns, point.time_ns, point.value)


def _distribution(point: HistogramPoint) -> sdk.HistogramDataPoint:
    return sdk.HistogramDataPoint(
        attributes=dict(point.attributes),
        start_time_unix_nano=point.start_ns,
        time_unix_nano=point.time_ns,
        count=point.count,
        sum=point.sum,
        bucket_counts=point.counts,
        explicit_bounds=point.bounds,
        min=point.minimum,
        max=point.maximum,
    )
