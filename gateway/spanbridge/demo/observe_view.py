"""How what was observed looks on a terminal, and as a flame graph."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spanbridge.cli import invocation
from spanbridge.demo.cast import CONSUMER, GATEWAY
from spanbridge.demo.observe import QUERIES, Observed
from spanbridge.demo.observe_stage import DEVICE, GROUP
from spanbridge.demo.otlp import Point
from spanbridge.demo.view import Colours, trace_panel
from spanbridge_profiling.flamegraph import write_flame_graph
from spanbridge_profiling.flames import hottest, short

FILE = Path("spanbridge-slow-consumer.html")
_BAR = 24
_ROWS = 4


def show(console: Console, seen: Observed, prometheus: str | None, file: Path = FILE) -> None:
    """Print lag, delay, the functions that used the CPU and the trace, and write the flame graph.

    :raises OSError: the file cannot be written.
    """
    _numbers(console, seen, prometheus)
    _flame_graph(console, seen, file)
    if seen.trace is not None and seen.hottest is not None:
        console.print()
        colours = Colours((DEVICE, GATEWAY, CONSUMER))
        title = f"the trace of that message, to span {seen.hottest.span_id}"
        console.print(trace_panel(seen.trace, title, colours, console.width))
    for problem in seen.problems:
        console.print(Text(f"✗ {problem}", "bold red"))


def _numbers(console: Console, seen: Observed, prometheus: str | None) -> None:
    table = Table.grid(padding=(0, 2))
    rows = [_lag(seen.lag), _delay(seen.delay), _in_flight(seen)]
    for name, told, source in filter(None, rows):
        table.add_row(Text(name, "bold"), told, Text(source, "dim"))
    console.print(Text("\nIs anything late, and where?", "bold"))
    console.print(table)
    if seen.asked is not None and prometheus is not None:
        console.print(Text(f"\nThe same from Prometheus at {prometheus}", "bold"))
        for name, value in seen.asked.items():
            answer = "no data" if value is None else f"{value:.1f}"
            console.print(Text.assemble(f"{name:<24}{answer:>9}  ", (QUERIES[name], "dim")), soft_wrap=True)


def _lag(row: dict[str, Any] | None) -> tuple[str, str, str] | None:
    if row is None:
        return None
    age = "" if row["age_s"] is None else f", the oldest for {row['age_s']:.1f} s"
    means = str(row["means"]).replace("_", " ")
    return "lag", f"group {GROUP}: {row['lag']} messages {means}{age}", "[lag]: brokers' offsets"


def _delay(point: Point | None) -> tuple[str, str, str] | None:
    if point is None or not point.count:
        return None
    mean = f"{point.sum / point.count:.1f} s since the device sent it"
    told = f"{mean}, on average over {point.count} messages; 95 % within {_within(point, 0.95)}"
    return "delay", told, "the consumer's histogram"


def _within(point: Point, share: float) -> str:
    """The bucket's upper bound below which that share of the values lies."""
    for bound, count in zip(point.bounds, accumulate(point.bucket_counts), strict=False):
        if count >= share * point.count:
            return f"{bound:g} s"
    return f"more than {point.bounds[-1]:g} s" if point.bounds else "no bound"


def _in_flight(seen: Observed) -> tuple[str, str, str] | None:
    if seen.in_flight is None or seen.in_flight_age is None:
        return None
    told = f"{seen.in_flight:.0f} message in the consumer's hands, for {seen.in_flight_age:.1f} s"
    return "in flight", told, "the consumer's gauges"


def _flame_graph(console: Console, seen: Observed, file: Path) -> None:
    profile = seen.profile
    if profile is None:
        return
    linked = [sample for sample in profile.samples if sample.span_id]
    whole = profile.cpu_ns or 1
    console.print(Text("\nWhy? Where the consumer's CPU time went", "bold"))
    for frame, cpu in hottest(profile.samples, _ROWS):
        bar = "█" * round(_BAR * cpu / whole)
        console.print(
            Text.assemble(
                (f"{bar:<{_BAR}} ", "dark_orange"),
                f"{cpu / whole:6.1%}  ",
                (frame.function, "bold"),
                (f"  {short(frame.file)}:{frame.line}", "dim"),
            )
        )
    spans = len({sample.span_id for sample in linked})
    taken = sum(sample.count for sample in linked)
    counted = f"{taken} of {profile.counts.total} samples were taken inside of {spans} process spans"
    console.print(Text(counted, "dim"))
    trace = "" if seen.hottest is None else f", trace {seen.hottest.trace_id}"
    file.write_text(write_flame_graph(profile, f"CPU of the slow consumer{trace}"), encoding="utf-8")
    console.print(Text.assemble(("flame graph: ", "bold"), str(file.resolve())), soft_wrap=True)


def next_commands(admin_url: str) -> tuple[tuple[str, str], ...]:
    """What to type while everything runs."""
    spanbridge = invocation.command()
    return (
        ("the gateway's own profile", f"{spanbridge} profile {admin_url} --by spanbridge.stage"),
        ("lag, metrics, status", f"{admin_url}/status"),
    )
