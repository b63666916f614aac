"""OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE (OpenTelemetry specification, "Metrics Exporter - OTLP")."""

from __future__ import annotations

from collections.abc import Mapping

from spanbridge.telemetry.env import TelemetryConfigError
from spanbridge.telemetry.metrics.meter import Temporality

_NAME = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


def preferred_temporality(environ: Mapping[str, str]) -> Temporality:
    """What the receiver wants; gauges have no temporality.

    ``lowmemory`` keeps asynchronous counters cumulative, which ours are for a reader: it asks for their totals.

    :raises TelemetryConfigError: neither ``cumulative``, ``delta`` nor ``lowmemory``.
    """
    wanted = environ.get(_NAME, "").strip().lower() or "cumulative"
    if wanted not in ("cumulative", "delta", "lowmemory"):
        raise TelemetryConfigError(f"{_NAME}={wanted!r} is not known here: use cumulative, delta or lowmemory")
    return Temporality(counters_delta=wanted == "delta", histograms_delta=wanted != "cumulative")
