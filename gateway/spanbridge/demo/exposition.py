"""What an OTLP receiver got, as Prometheus scrapes it from a collector's exporter: names, units and labels as there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from spanbridge.demo.otlp import Point, ReceivedMetric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_UNITS = {"s": "seconds", "By": "bytes", "ms": "milliseconds"}
_NO_NAME = re.compile(r"[^a-zA-Z0-9_]")
_KINDS = {"sum": "counter", "gauge": "gauge", "histogram": "histogram"}


def newest(metrics: Iterable[ReceivedMetric]) -> list[ReceivedMetric]:
    """The last export of each metric of each process."""
    found = {(metric.name, _service(metric), metric.scope): metric for metric in metrics}
    return list(found.values())


def write_exposition(metrics: Iterable[ReceivedMetric]) -> str:
    """The text format (Prometheus, "Exposition formats"). Deltas and other kinds of metrics are left out."""
    families: dict[str, list[str]] = {}
    for metric in newest(metrics):
        kind = _kind(metric)
        if kind is None or metric.temporality == "DELTA":
            continue
        name = prometheus_name(metric, kind)
        lines = families.setdefault(f"# TYPE {name} {kind}", [])
        about = {"job": _service(metric)}
        for point in metric.points:
            lines += _histogram(name, point, about) if kind == "histogram" else [_line(name, point, about)]
    return "".join(f"{head}\n" + "".join(f"{line}\n" for line in lines) for head, lines in families.items())


def prometheus_name(metric: ReceivedMetric, kind: str) -> str:
    """OpenTelemetry's "Prometheus and OpenMetrics compatibility": the unit's suffix, and ``_total`` of a counter."""
    name = _NO_NAME.sub("_", metric.name)
    unit = _UNITS.get(metric.unit, "")
    if unit and not name.endswith(f"_{unit}"):
        name += f"_{unit}"
    return f"{name}_total" if kind == "counter" else name


def _kind(metric: ReceivedMetric) -> str | None:
    kind = _KINDS.get(metric.kind)
    return "gauge" if kind == "counter" and not metric.monotonic else kind


def _service(metric: ReceivedMetric) -> str:
    return str(metric.resource.get("service.name", ""))


def _line(name: str, point: Point, about: Mapping[str, Any]) -> str:
    return f"{name}{_labels({**point.attributes, **about})} {point.value}"


def _histogram(name: str, point: Point, about: Mapping[str, Any]) -> Iterator[str]:
    labels = {**point.attributes, **about}
    bounds = [*(f"{bound:g}" for bound in point.bounds), "+Inf"]
    for bound, count in zip(bounds, accumulate(point.bucket_counts), strict=False):
        yield f"{name}_bucket{_labels({**labels, 'le': bound})} {count}"
    yield f"{name}_sum{_labels(labels)} {point.sum}"
    yield f"{name}_count{_labels(labels)} {point.count}"


def _labels(attributes: Mapping[str, Any]) -> str:
    pairs = (f'{_NO_NAME.sub("_", key)}="{_escaped(value)}"' for key, value in sorted(attributes.items()))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
