"""Medians and percentiles over runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of one mode. Rates are messages a second, CPU is user + system time of the bridge's processes."""

    msgs_per_s: float
    cpu_us_per_msg: float
    rss_mib: float
    p50_ms: float
    p99_ms: float
    lost: float
    idle_rss_mib: float
    spans_per_msg: float
    generator_waited: float
    """Share of the measured time in which the generator waited for the bridge. Near zero: it was the limit."""
    generator_us_per_msg: float = 0.0
    """CPU of the generator's process, microseconds for each message that it published."""
    bridge_cores: float = 0.0
    """Cores that the bridge had, of those of the machine."""
    other_cores: float = 0.0
    """Cores that everything else had: brokers, the generator, and what else the machine does."""


def percentile(values: Sequence[float], q: float) -> float:
    """The ``q``-quantile (0..1) by linear interpolation between closest ranks.

    :raises ValueError: there are no values.
    """
    if not values:
        raise ValueError("percentile of nothing")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def medians(runs: Iterable[Measurement]) -> Measurement:
    """Field by field the median of the runs; ``lost`` is the worst run's, since a median would hide a loss.

    :raises statistics.StatisticsError: there are no runs.
    """
    rows = [asdict(run) for run in runs]
    merged = {field.name: median(row[field.name] for row in rows) for field in fields(Measurement)}
    merged["lost"] = max(row["lost"] for row in rows)
    return Measurement(**merged)


def spread(values: Sequence[float]) -> float:
    """Half the distance between the slowest and the fastest run, as a share of their median. 0 for one run."""
    middle = median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """One over the other, round by round; rounds in which one of them was not measured are left out."""
    return [this / that for this, that in zip(these, those, strict=False) if that]
