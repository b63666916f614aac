"""How findings look: a table on a terminal, one line each when piped, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from spanbridge.config import Config, Problem, Report

if TYPE_CHECKING:
    from rich.text import Text

    from spanbridge.app.findings import PeerFinding


def show_problems(file: Path, report: Report, *, stream: TextIO) -> None:
    """Write all findings to ``stream``; nothing when there are none."""
    if not report.problems:
        return
    if stream.isatty():
        _show_table(file, report, stream)
        return
    for problem in report.problems:
        stream.write(problem.located(file) + "\n")
    stream.write(f"{file}: {_counts(report)}\n")


def as_json_lines(log_format: str, stream: TextIO) -> bool:
    """Whether the gateway's log on ``stream`` consists of JSON lines."""
    return log_format == "json" or (log_format == "auto" and not stream.isatty())


def log_problems(file: Path, report: Report, *, stream: TextIO) -> None:
    """Write all findings to ``stream`` as lines of the gateway's log, so that one stream has one form."""
    for problem in report.problems:
        fields = {"file": str(file), **problem.as_dict()}
        text = problem.located(file)
        stream.write(json_line(problem.severity, "spanbridge.config", text, event="config.problem", fields=fields))


def json_line(level: str, logger: str, text: str, **more: object) -> str:
    """One line as the gateway's log writes them in JSON (docs/telemetry.md)."""
    now = datetime.now(UTC)
    content = {
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "logger": logger,
        "message": text,
    }
    return json.dumps(content | more, ensure_ascii=False) + "\n"


def print_json(file: Path, report: Report, peers: Sequence[PeerFinding] | None = None) -> None:
    """The report, and what the peers say where they were asked, as one JSON object on standard output."""
    content: dict[str, Any] = {
        "file": str(file),
        "valid": report.config is not None,
        "problems": [problem.as_dict() for problem in report.problems],
    }
    if peers is not None:
        content["connected"] = all(peer.ok for peer in peers)
        content["peers"] = [asdict(peer) for peer in peers]
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def show_valid(file: Path, config: Config) -> None:
    """One line of praise, and what the file amounts to."""
    brokers, routes = _plural(len(config.mqtt), "MQTT connection"), _plural(len(config.routes), "route")
    downlinks = f", {_plural(len(config.downlinks), 'downlink')}" if config.downlinks else ""
    sys.stdout.write(f"{file} is valid: {brokers}, {routes}{downlinks}\n")
    if config.gateway.workers > 1:
        _show_workers(config)


def _show_workers(config: Config) -> None:
    """Who takes which subscriptions, and what that does to order."""
    from spanbridge.config.split import split  # noqa: PLC0415

    portions = split(config)
    several = len(config.mqtt) > 1
    sys.stdout.write(f"{config.gateway.workers} workers, each with its own MQTT session and memory\n")
    for number in (*range(1, config.gateway.workers + 1), None):
        filters = [
            f"{text} of {one.broker}" if several else text
            for one in portions
            if one.worker == number
            for text in one.filters
        ]
        if number is not None:
            told = f"{', '.join(filters)} (in order)" if filters else "no filter of its own"
            sys.stdout.write(f"  worker {number}: {told}\n")
        elif filters:
            what = "(the broker deals messages out one by one; most keep no order within an MQTT topic then)"
            sys.stdout.write(f"  any worker: {', '.join(filters)} {what}\n")
    if config.downlinks:
        sys.stdout.write("  downlinks: each worker is a member of the consumer groups\n")


def _counts(report: Report) -> str:
    parts = [_plural(len(report.errors), "error")] if report.errors else []
    parts += [_plural(len(report.warnings), "warning")] if report.warnings else []
    return ", ".join(parts)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _show_table(file: Path, report: Report, stream: TextIO) -> None:
    from rich import box  # noqa: PLC0415 - on terminals only
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.ROUNDED, show_lines=True, title=Text(f"{file}: {_counts(report)}"), title_justify="left")
    table.add_column("line", justify="right", style="dim")
    table.add_column("setting", style="bold", overflow="fold")
    table.add_column("problem", ratio=1, overflow="fold")
    for problem in report.problems:
        line = str(problem.line) if problem.line is not None else ""
        table.add_row(line, _setting(problem), _description(problem))
    Console(file=stream, highlight=False).print(table)


def _setting(problem: Problem) -> Text:
    from rich.text import Text  # noqa: PLC0415

    text = Text(problem.path or ("(environment)" if problem.source else "(file)"))
    if problem.source:
        text.append(f"\n{problem.source}", style="not bold dim")
    return text


def _description(problem: Problem) -> Text:
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    text.append(problem.severity, style="bold red" if problem.severity == "error" else "bold yellow")
    text.append(f": {problem.message}")
    if problem.value is not None:
        text.append("\ngot ", style="dim").append(problem.value)
    if problem.hint:
        text.append("\nhint: ", style="green").append(problem.hint)
    return text
