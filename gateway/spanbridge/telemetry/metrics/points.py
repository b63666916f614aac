"""What a reading of the metrics holds: the same for Prometheus and for OTLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricScope:
    """The instrumentation scope: who measured."""

    name: str
    version: str = ""
    schema_url: str = ""


@dataclass(frozen=True, slots=True)
class NumberPoint:
    """A number of one attribute set. ``start_ns`` and ``time_ns`` are Unix time in nanoseconds."""

    attributes: Mapping[str, Any]
    start_ns: int
    time_ns: int
    value: float


@dataclass(frozen=True, slots=True)
class HistogramPoint:
    """A distribution: ``counts[i]`` is of values up to and including ``bounds[i]``, the last one of those above."""

    attributes: Mapping[str, Any]
    start_ns: int
    time_ns: int
    counts: Sequence[int]
    bounds: Sequence[float]
    sum: float
    minimum: float
    maximum: float

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)


Point = NumberPoint | HistogramPoint


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with all its attribute sets. ``unit`` is UCUM; ``delta``: values are since the last reading."""

    name: str
    description: str
    unit: str
    kind: Kind
    points: Sequence[Point]
    delta: bool = False
