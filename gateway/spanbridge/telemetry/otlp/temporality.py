"""OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE (OpenTelemetry specification, "Metrics Exporter - OTLP")."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality

from spanbridge.telemetry.env import TelemetryConfigError

_NAME = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


def preferred_temporality(environ: Mapping[str, str]) -> dict[type, AggregationTemporality]:
    """What the receiver wants; instruments that are not named stay cumulative.

    Our counters stand for synchronous ones: ``lowmemory`` keeps observable counters cumulative, which they are here.

    :raises TelemetryConfigError: neither ``cumulative``, ``delta`` nor ``lowmemory``.
    """
    wanted = environ.get(_NAME, "").strip().lower() or "cumulative"
    delta = AggregationTemporality.DELTA
    if wanted == "cumulative":
        return {}
    if wanted == "delta":
        return {Counter: delta, Histogram: delta, ObservableCounter: delta}
    if wanted == "lowmemory":
        return {Counter: delta, Histogram: delta}
    raise TelemetryConfigError(f"{_NAME}={wanted!r} is not known here: use cumulative, delta or lowmemory")
