"""The benchmark's output: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.modes import MODES, SHAPE_MODES
from bench.shapes import PLAIN, SHAPES
from bench.stats import Measurement, medians, spread
from bench.targets import RATIO, Key, Runs, Target, cpu_ratio, cpu_ratios, idle_rss_mib, targets

KEYS = ("msgs_per_s", "cpu_us_per_msg", "rss_mib", "p50_ms", "p99_ms", "lost")
"""The keys of every mode in the JSON object, promised to those who parse it. More may be added."""

_COLUMNS = ("messages/s", "±", "CPU/message", "busy", "resident", "p50", "p99", "lost", "spans/message", "runs")


def summary(runs: Runs, machine: dict[str, Any], setup: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    """The JSON object: the modes of ``plain``, all shapes, ratios, promises, the machine, and further ``sections``."""
    out: dict[str, Any] = {mode.name: _fields(runs[key]) for mode in MODES if runs.get(key := Key("plain", mode.name))}
    idle = idle_rss_mib(runs)
    out["idle_rss_mib"] = None if idle is None else round(idle, 1)
    out["shapes"] = _by_shape(runs, "")
    if rev := _rev(runs):
        out["against"] = {"rev": rev} | _ratios(runs, rev)
        out["against_shapes"] = _by_shape(runs, rev)
    out["targets"] = [
        {"about": t.about, "value": round(t.value, 3), "bound": t.bound, "at_least": t.at_least, "met": t.met}
        for t in targets(runs)
    ]
    return out | {"machine": machine, "setup": setup} | sections


def _rev(runs: Runs) -> str:
    """The commit compared with, empty for none."""
    return max((key.rev for key in runs), default="")


def _fields(measurements: list[Measurement]) -> dict[str, Any]:
    result = medians(measurements)
    rates = [run.msgs_per_s for run in measurements]
    return {key: round(getattr(result, key), 3) for key in KEYS} | {
        "lost": int(result.lost),
        "idle_rss_mib": round(result.idle_rss_mib, 1),
        "spans_per_msg": round(result.spans_per_msg, 3),
        "generator_waited": round(result.generator_waited, 3),
        "generator_us_per_msg": round(result.generator_us_per_msg, 3),
        "spread": round(spread(rates), 3),
        "runs": len(rates),
    }


def _by_shape(runs: Runs, rev: str) -> dict[str, dict[str, Any]]:
    found = {
        shape.name: {mode: _fields(runs[key]) for mode in SHAPE_MODES if runs.get(key := Key(shape.name, mode, rev))}
        for shape in SHAPES
    }
    return {name: modes for name, modes in found.items() if modes}


def _ratios(runs: Runs, rev: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for shape in SHAPES:
        for mode in SHAPE_MODES:
            ratio = cpu_ratio(runs, Key(shape.name, mode), Key(shape.name, mode, rev))
            if ratio is not None:
                found.setdefault(shape.name, {})[mode] = round(ratio, 3)
    return found


def last_line(result: dict[str, Any]) -> str:
    """The object on one line."""
    return json.dumps(result, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in ("mode", "shape") else "right", no_wrap=True)
    return table


def results_table(runs: Runs) -> Table:
    """Medians of ``plain`` on the way up, by mode."""
    return _modes_table(runs, "MQTT 5 QoS 1 → RocketMQ, 128 bytes, 100 topics", down=False)


def down_table(runs: Runs) -> Table:
    """The same on the way down."""
    return _modes_table(runs, "RocketMQ → MQTT 5 QoS 1, 128 bytes, 100 topics", down=True)


def _modes_table(runs: Runs, title: str, *, down: bool) -> Table:
    table = _table(title, "mode", *_COLUMNS)
    for mode in MODES:
        if mode.down is not down:
            continue
        measurements = runs.get(Key(PLAIN.name, mode.name))
        if not measurements:
            continue
        if mode.name in ("baseline_untraced", "baseline_downlink") and table.row_count:
            table.add_section()
        table.add_row(Text(mode.name, style="cyan" if mode.bridge == "gateway" else "dim"), *_cells(measurements))
    return table


def _cells(measurements: list[Measurement]) -> list[str]:
    result = medians(measurements)
    rates = [run.msgs_per_s for run in measurements]
    lost = f"[red]{result.lost:.0f}[/]" if result.lost else "[green]0[/]"
    return [
        f"[bold]{result.msgs_per_s:,.0f}[/]",
        f"{spread(rates):.0%}",
        f"{result.cpu_us_per_msg:.1f} µs",
        f"{result.msgs_per_s * result.cpu_us_per_msg / 1e6:.0%}",
        f"{result.rss_mib:.0f} MiB",
        f"{result.p50_ms:.1f} ms",
        f"{result.p99_ms:.1f} ms",
        lost,
        f"{result.spans_per_msg:.2f}",
        str(len(rates)),
    ]


def shapes_table(runs: Runs) -> Table:
    """A line for each shape and mode: this checkout, beside ``plain`` and beside the commit compared with."""
    rev = _rev(runs)
    table = _table("Shapes of work", "shape", "mode", "messages/s", "±", "CPU/message", "busy", "over plain", "lost")
    if rev:
        table.add_column(f"CPU of {rev}", justify="right", no_wrap=True)
        table.add_column("ratio", justify="right", no_wrap=True)
    for shape in SHAPES:
        for mode in SHAPE_MODES:
            key = Key(shape.name, mode)
            if not runs.get(key):
                continue
            rate, wide, cpu, busy, _, _, _, lost, _, _ = _cells(runs[key])
            cells = [rate, wide, cpu, busy, _ratio(runs, key, Key(PLAIN.name, mode)), lost]
            if rev:
                other = key._replace(rev=rev)
                cells += [_cells(runs[other])[2] if runs.get(other) else "—", _ratio(runs, key, other)]
            table.add_row(Text(shape.name, style="cyan"), mode, *cells)
    return table


def _ratio(runs: Runs, over: Key, under: Key) -> str:
    """The median of the rounds' ratios, and their range where there are several."""
    found = cpu_ratios(runs, over, under)
    if not found:
        return "—"
    wide = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 and over != under else ""
    return f"{median(found):.2f}{wide}"


def targets_table(found: list[Target]) -> Table:
    """Each promise with what was measured."""
    table = Table(title="Promises", title_justify="left", title_style="bold")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("target", justify="right")
    table.add_column("", justify="center")
    for target in found:
        sign = "≥" if target.at_least else "≤"
        digits = 2 if target.bound < 2 and target.unit == RATIO else 1
        digits = 0 if target.unit == "" else digits
        table.add_row(
            target.about,
            f"{target.value:.{digits}f} {target.unit}".rstrip(),
            f"{sign} {target.bound:g} {target.unit}".rstrip(),
            "[bold green]met[/]" if target.met else "[bold red]missed[/]",
        )
    return table


def warnings(runs: Runs) -> list[str]:
    """What makes a figure doubtful, in words."""
    found = []
    for key, measurements in runs.items():
        if not measurements:
            continue
        name = " ".join(part for part in key if part)
        result = medians(measurements)
        if result.generator_waited < 0.02:
            found.append(f"{name}: the load generator hardly waited; the bridge may be faster than shown")
        if (wide := spread([run.msgs_per_s for run in measurements])) > 0.15:
            found.append(f"{name}: runs differ by ±{wide:.0%}; is the machine busy?")
        if key.rev and result.lost:
            found.append(f"{name}: {result.lost:.0f} messages acknowledged and lost")
    return found


def print_report(console: Console, runs: Runs) -> None:
    """Tables and doubts, without the JSON line."""
    console.print()
    for results in (results_table(runs), down_table(runs)):
        if results.row_count:
            console.print(results)
    if any(key.shape != PLAIN.name or key.rev for key in runs):
        console.print(shapes_table(runs))
    console.print(targets_table(targets(runs)))
    for warning in warnings(runs):
        console.print(f"[yellow]note[/]  {warning}", highlight=False)
