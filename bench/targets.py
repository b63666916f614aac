"""What the product promises, judged from one run of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from bench.modes import MODES
from bench.stats import Measurement, ratios

RATIO = "×"  # noqa: RUF001 - the sign is meant
"""The unit of a ratio."""

OVER_PLAIN = {"readme": 1.2, "topics_10k": 1.15, "v311_suffix": 1.3, "properties": 1.6}
"""CPU per message over that of ``plain``, traced: at most this."""

OVER_AGAINST = {("plain", "traced"): 0.65, ("plain", "untraced"): 0.7, ("readme", "traced"): 0.25}
"""CPU per message over that of the commit compared with: at most this."""


class Key(NamedTuple):
    """Whose measurements: a shape's in a mode; ``rev`` is empty for this checkout."""

    shape: str
    mode: str
    rev: str = ""


Runs = Mapping[Key, list[Measurement]]
"""Measurements by what they are of, in the order of the rounds."""


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: ``value`` compared with ``bound``. Unitless for a ratio (``RATIO``)."""

    about: str
    value: float
    bound: float
    at_least: bool
    unit: str

    @property
    def met(self) -> bool:
        """Whether the promise is kept in this run."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def cpu_ratios(runs: Runs, over: Key, under: Key) -> list[float]:
    """CPU per message of one over that of another, round by round; empty where one of them did not run."""
    these, those = runs.get(over) or (), runs.get(under) or ()
    return ratios([run.cpu_us_per_msg for run in these], [run.cpu_us_per_msg for run in those])


def cpu_ratio(runs: Runs, over: Key, under: Key) -> float | None:
    """The median of those; None where one of them did not run."""
    return median(found) if (found := cpu_ratios(runs, over, under)) else None


def targets(runs: Runs) -> list[Target]:
    """The promises that can be judged from what ran."""
    return [
        *_against_the_baseline(runs), *_tracing(runs), *_shapes(runs), *_down(runs), *_against(runs), *_others(runs),
    ]  # fmt: skip


def _at_most(about: str, value: float | None, bound: float, unit: str) -> list[Target]:
    return [] if value is None else [Target(about, value, bound, at_least=False, unit=unit)]


def _rates(runs: Runs, about: str, over: str, under: str, bound: float) -> list[Target]:
    a, b = runs.get(Key("plain", over)), runs.get(Key("plain", under))
    if not a or not b:
        return []
    value = median(run.msgs_per_s for run in a) / median(run.msgs_per_s for run in b)
    return [Target(about, value, bound, at_least=True, unit=RATIO)]


def _against_the_baseline(runs: Runs) -> list[Target]:
    return [
        *_rates(runs, "rate, traced at 100 %, against the baseline traced", "traced", "baseline_traced", 10),
        *_rates(runs, "rate, untraced, against the baseline untraced", "untraced", "baseline_untraced", 15),
    ]


def _tracing(runs: Runs) -> list[Target]:
    traced, untraced = runs.get(Key("plain", "traced")), runs.get(Key("plain", "untraced"))
    found = _rates(runs, "rate kept when everything is traced", "traced", "untraced", 0.85)
    if traced:
        value = median(run.cpu_us_per_msg for run in traced)
        found += _at_most("CPU per message, traced", value, 50, "µs")
    if traced and untraced:
        more = median(a.cpu_us_per_msg - b.cpu_us_per_msg for a, b in zip(traced, untraced, strict=False))
        found += _at_most("CPU per message that tracing adds", more, 3, "µs")
    return found


def _shapes(runs: Runs) -> list[Target]:
    found = []
    for shape, bound in OVER_PLAIN.items():
        ratio = cpu_ratio(runs, Key(shape, "traced"), Key("plain", "traced"))
        found += _at_most(f"CPU per message, traced, {shape} over plain", ratio, bound, RATIO)
    return found


def _down(runs: Runs) -> list[Target]:
    found = []
    for mode, words in (("downlink", "down"), ("downlink_traced", "down, traced")):
        found += _rates(runs, f"rate, {words}, against the baseline", mode, "baseline_downlink", 15)
        if measured := runs.get(Key("plain", mode)):
            cpu = median(run.cpu_us_per_msg for run in measured)
            found += _at_most(f"CPU per message, {words}", cpu, 50, "µs")
            p50 = median(run.p50_ms for run in measured)
            found += _at_most(f"median latency at 100 a second, {words}", p50, 5, "ms")
    found += _rates(runs, "rate, down by remoting, against gRPC", "downlink_remoting", "downlink", 3)
    return found


def _against(runs: Runs) -> list[Target]:
    found = []
    for rev in sorted({key.rev for key in runs} - {""}):
        for (shape, mode), bound in OVER_AGAINST.items():
            ratio = cpu_ratio(runs, Key(shape, mode), Key(shape, mode, rev))
            found += _at_most(f"CPU per message, {shape} {mode}, over {rev}", ratio, bound, RATIO)
    return found


def _others(runs: Runs) -> list[Target]:
    found = []
    if (idle := idle_rss_mib(runs)) is not None:
        found += _at_most("resident when idle", idle, 60, "MiB")
    ours = [run for key, measurements in runs.items() if not key.rev for run in measurements]
    if ours:
        found += _at_most("messages acknowledged and lost", sum(run.lost for run in ours), 0, "")
    return found


def idle_rss_mib(runs: Runs) -> float | None:
    """The highest of the gateway's medians, in MiB; None where the gateway did not run.

    Of the modes that export nothing, as is the default, where there are such: exporting over HTTP takes 9 MiB more.
    """
    gateway = {mode.name: mode.exports for mode in MODES if mode.bridge == "gateway" and not mode.down}
    ours = {key: measured for key, measured in runs.items() if measured and not key.rev and key.mode in gateway}
    mine = [measured for key, measured in ours.items() if not gateway[key.mode]] or list(ours.values())
    return max((median(run.idle_rss_mib for run in measured) for measured in mine), default=None)
