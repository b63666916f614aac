"""The benchmark's output: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.modes import MODES, RATIO, Target, targets
from bench.stats import Measurement, medians, spread

KEYS = ("msgs_per_s", "cpu_us_per_msg", "rss_mib", "p50_ms", "p99_ms", "lost")
"""The keys of every mode in the JSON object, promised to those who parse it. More may be added."""


def summary(
    runs: dict[str, list[Measurement]], machine: dict[str, Any], setup: dict[str, Any], sections: dict[str, Any]
) -> dict[str, Any]:
    """The JSON object: a member for each mode, ``idle_rss_mib``, the ratios, the machine, and further ``sections``."""
    merged = {name: medians(measurements) for name, measurements in runs.items() if measurements}
    out: dict[str, Any] = {}
    for name, result in merged.items():
        rates = [run.msgs_per_s for run in runs[name]]
        out[name] = {key: round(getattr(result, key), 3) for key in KEYS} | {
            "lost": int(result.lost),
            "spans_per_msg": round(result.spans_per_msg, 3),
            "generator_waited": round(result.generator_waited, 3),
            "spread": round(spread(rates), 3),
            "runs": len(rates),
        }
    out["idle_rss_mib"] = max((round(merged[m].idle_rss_mib, 1) for m in _gateway_modes(merged)), default=None)
    out["targets"] = [
        {"about": t.about, "value": round(t.value, 3), "bound": t.bound, "at_least": t.at_least, "met": t.met}
        for t in targets(merged)
    ]
    return out | {"machine": machine, "setup": setup} | sections


def _gateway_modes(merged: dict[str, Measurement]) -> list[str]:
    return [mode.name for mode in MODES if mode.bridge == "gateway" and mode.name in merged]


def last_line(result: dict[str, Any]) -> str:
    """The object on one line."""
    return json.dumps(result, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def results_table(runs: dict[str, list[Measurement]]) -> Table:
    """Medians by mode. A mode without a run yet has dashes."""
    table = Table(title="MQTT 5 QoS 1 → RocketMQ, 128 bytes, 100 topics", title_justify="left", title_style="bold")
    table.add_column("mode", no_wrap=True)
    for name in ("messages/s", "±", "CPU/message", "resident", "p50", "p99", "lost", "spans/message", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    for mode in MODES:
        if mode.name not in runs:
            continue
        if mode.name == "baseline_untraced" and table.row_count:
            table.add_section()
        table.add_row(Text(mode.name, style="cyan" if mode.bridge == "gateway" else "dim"), *_cells(runs[mode.name]))
    return table


def _cells(measurements: list[Measurement]) -> list[str]:
    if not measurements:
        return ["—"] * 8 + ["0"]
    result = medians(measurements)
    rates = [run.msgs_per_s for run in measurements]
    lost = f"[red]{result.lost:.0f}[/]" if result.lost else "[green]0[/]"
    return [
        f"[bold]{result.msgs_per_s:,.0f}[/]",
        f"{spread(rates):.0%}",
        f"{result.cpu_us_per_msg:.1f} µs",
        f"{result.rss_mib:.0f} MiB",
        f"{result.p50_ms:.1f} ms",
        f"{result.p99_ms:.1f} ms",
        lost,
        f"{result.spans_per_msg:.2f}",
        str(len(rates)),
    ]


def targets_table(found: list[Target]) -> Table:
    """Each promise with what was measured."""
    table = Table(title="Promises", title_justify="left", title_style="bold")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    table.add_column("", justify="center")
    for target in found:
        sign = "≥" if target.at_least else "≤"
        digits = 2 if target.bound < 1 and target.unit == RATIO else 1
        digits = 0 if target.unit == "" else digits
        table.add_row(
            target.about,
            f"{target.value:.{digits}f} {target.unit}".rstrip(),
            f"{sign} {target.bound:g} {target.unit}".rstrip(),
            "[bold green]met[/]" if target.met else "[bold red]missed[/]",
        )
    return table


def warnings(runs: dict[str, list[Measurement]]) -> list[str]:
    """What makes a figure doubtful, in words."""
    found = []
    for name, measurements in runs.items():
        if not measurements:
            continue
        result = medians(measurements)
        if result.generator_waited < 0.02:
            found.append(f"{name}: the load generator hardly waited; the bridge may be faster than shown")
        if (wide := spread([run.msgs_per_s for run in measurements])) > 0.15:
            found.append(f"{name}: runs differ by ±{wide:.0%}; is the machine busy?")
    return found


def print_report(console: Console, runs: dict[str, list[Measurement]]) -> None:
    """Tables and doubts, without the JSON line."""
    merged = {name: medians(measurements) for name, measurements in runs.items() if measurements}
    console.print()
    console.print(results_table(runs))
    console.print(targets_table(targets(merged)))
    for warning in warnings(runs):
        console.print(f"[yellow]note[/]  {warning}")
