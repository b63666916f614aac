"""How the answers of `check --connect` look: a table on a terminal, one line each when piped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from spanbridge.app.findings import PeerFinding

_STYLES = {"ok": "green", "warning": "bold yellow", "failed": "bold red", "skipped": "dim"}


def show_findings(findings: Sequence[PeerFinding], *, stream: TextIO) -> None:
    """Write what the peers said, and the sum of it."""
    if stream.isatty():
        _show_table(findings, stream)
    else:
        for one in findings:
            took = f" ({_time(one)})" if one.milliseconds is not None else ""
            stream.write(f"{one.peer}: {one.subject}: {one.state}: {one.text}{took}\n")
    stream.write(_sum(findings) + "\n")


def _sum(findings: Sequence[PeerFinding]) -> str:
    states = [one.state for one in findings]
    failed, skipped = states.count("failed"), states.count("skipped")
    if not failed:
        return "both sides answer as they should"
    return f"{failed} of {len(states)} checks failed" + (f", {skipped} could not be made" if skipped else "")


def _show_table(findings: Sequence[PeerFinding], stream: TextIO) -> None:
    from rich import box  # noqa: PLC0415 - on terminals only
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.ROUNDED)
    table.add_column("peer", style="bold", overflow="fold")
    table.add_column("asked about", overflow="fold")
    table.add_column("")
    table.add_column("answer", ratio=1, overflow="fold")
    table.add_column("time", justify="right")
    for one in findings:
        state = Text(one.state, style=_STYLES[one.state])
        table.add_row(Text(one.peer), Text(one.subject), state, Text(one.text), _time(one))
    Console(file=stream, highlight=False).print(table)


def _time(one: PeerFinding) -> str:
    return f"{one.milliseconds:g} ms" if one.milliseconds is not None else ""
