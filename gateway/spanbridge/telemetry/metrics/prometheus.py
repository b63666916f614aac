"""Prometheus exposition of a reading of the metrics.

Names, units and types follow the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility"; the two
formats are Prometheus text 0.0.4 and OpenMetrics 1.0.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from spanbridge.telemetry.metrics.points import HistogramPoint, Metric, MetricScope, Point

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]+")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]+")
_ANNOTATION = re.compile(r"\{[^}]*\}")
_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "%": "percent",
    "1": "ratio",
}


def content_type(accept: str) -> str:
    """The format for an Accept header: OpenMetrics only when asked for."""
    return OPENMETRICS if "application/openmetrics-text" in accept else TEXT


def prometheus_text(
    metrics: Sequence[Metric], resource: Mapping[str, Any], scope: MetricScope, *, openmetrics: bool = False
) -> bytes:
    """All metrics in the exposition format; ``resource`` has the attributes that ``target_info`` shows."""
    lines = _target_info(resource, openmetrics)
    families: dict[str, tuple[str, list[str]]] = {}
    labels = _scope_labels(scope)
    for metric in metrics:
        _add(families, metric, labels, openmetrics)
    for _, family in families.values():
        lines += family
    if openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _add(
    families: dict[str, tuple[str, list[str]]], metric: Metric, scope: Mapping[str, Any], openmetrics: bool
) -> None:
    kind = metric.kind
    name = _name(metric.name, metric.unit, kind)
    samples = [line for point in metric.points for line in _samples(name, kind, point, scope)]
    if name not in families:
        families[name] = (kind, _head(name, kind, metric, openmetrics))
    # Of two metrics that come to the same name, the type of the first holds; the other's samples would not parse.
    if families[name][0] == kind:
        families[name][1].extend(samples)


def _name(name: str, unit: str, kind: str) -> str:
    """The family's name, without ``_total``."""
    clean = _NOT_IN_NAMES.sub("_", name).strip("_")
    if clean[:1].isdigit():
        clean = f"_{clean}"
    clean = clean.removesuffix("_total") if kind == "counter" else clean
    suffix = _unit(unit, kind)
    return clean if not suffix or clean.endswith(f"_{suffix}") else f"{clean}_{suffix}"


def _unit(unit: str, kind: str) -> str:
    plain = _ANNOTATION.sub("", unit).strip()
    if plain == "1" and kind != "gauge":
        return ""
    if "/" in plain:
        over, _, under = plain.partition("/")
        return "_per_".join(filter(None, (_UNITS.get(over, over), _UNITS.get(under, under).removesuffix("s"))))
    return _NOT_IN_NAMES.sub("_", _UNITS.get(plain, plain)).strip("_")


def _head(name: str, kind: str, metric: Metric, openmetrics: bool) -> list[str]:
    family = name if openmetrics or kind != "counter" else f"{name}_total"
    lines = [f"# TYPE {family} {kind}"]
    unit = _unit(metric.unit, kind)
    if openmetrics and unit:
        lines.append(f"# UNIT {family} {unit}")
    if metric.description:
        text = metric.description.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"# HELP {family} {text.replace(chr(34), chr(92) + chr(34)) if openmetrics else text}")
    return lines


def _samples(name: str, kind: str, point: Point, scope: Mapping[str, Any]) -> Iterator[str]:
    labels = _label_text([*point.attributes.items(), *scope.items()])
    braced = f"{{{labels}}}" if labels else ""
    if not isinstance(point, HistogramPoint):
        yield f"{name}{'_total' if kind == 'counter' else ''}{braced} {_number(point.value)}"
    else:
        before = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
        running = 0
        for bound, count in zip((*point.bounds, math.inf), point.counts, strict=True):
            running += count
            yield f'{before}le="{_number(float(bound))}"}} {running}'
        yield f"{name}_sum{braced} {_number(point.sum)}"
        yield f"{name}_count{braced} {point.count}"


def _label_text(attributes: Iterable[tuple[str, Any]]) -> str:
    """Labels without their braces; values whose names come to the same are joined by ``;``."""
    found: dict[str, str] = {}
    for key, value in attributes:
        name = _NOT_IN_LABELS.sub("_", key)
        name = f"_{name}" if name[:1].isdigit() else name
        text = str(value).lower() if isinstance(value, bool) else str(value)
        found[name] = f"{found[name]};{text}" if name in found else text
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in found.items())


def _escaped(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return escaped.encode("utf-8", "replace").decode()


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _scope_labels(scope: MetricScope) -> dict[str, str]:
    found = {"otel_scope_name": scope.name}
    if scope.version:
        found["otel_scope_version"] = scope.version
    return found


def _target_info(resource: Mapping[str, Any], openmetrics: bool) -> list[str]:
    labels = _label_text(resource.items())
    head = ["# TYPE target info"] if openmetrics else ["# TYPE target_info gauge"]
    family = "target" if openmetrics else "target_info"
    return [*head, f"# HELP {family} Target metadata", f"target_info{{{labels}}} 1"]
