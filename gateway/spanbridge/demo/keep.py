"""``--keep``: what to try while everything runs, and the traces of whatever comes through."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spanbridge.demo.cast import CONSUMER, Cast, Places, example
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.demo.stage import Stage
from spanbridge.demo.traces import Traces
from spanbridge.demo.view import Colours, trace_panel

_POLL_SECONDS = 0.25
_SETTLE_SECONDS = 0.6
_AT_ONCE = 3


def _table(title: str, rows: Iterable[tuple[str, str]]) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, Text(text))
    return Panel(table, title=Text(title, "bold"), title_align="left", border_style="grey50", padding=(0, 1))


NEXT = _table(
    "Next",
    (
        ("look around", "spanbridge demo --keep"),
        ("run your own", "spanbridge init && spanbridge check && spanbridge run"),
        ("brokers to try it on", "spanbridge devstack up"),
    ),
)


def look_around(console: Console, stage: Stage, cast: Cast, colours: Colours) -> None:
    """Say what can be looked at, then print each new trace until interrupted."""
    console.print(_table("Everything keeps running; Ctrl-C ends it", _rows(stage)))
    console.print("[dim]New traces appear below.[/]", end="\n\n")
    _watch(console, stage.receiver, colours)


def _rows(stage: Stage) -> Iterable[tuple[str, str]]:
    places = stage.places
    yield "status", f"curl {stage.admin_url}/status"
    yield "health", f"curl {stage.admin_url}/readyz"
    yield "metrics", f"curl {stage.admin_url}/metrics"
    yield "configuration", str(stage.config_path)
    yield "logs", f"tail -f {stage.directory}/*.log"
    yield "publish (v5)", _command(stage, "device_v5.py", "device-v5", places, places.v5_port)
    yield "publish (v3.1.1)", _command(stage, "device_v311.py", "meter-v311", places, places.v311_port)
    yield (
        "consume",
        (
            f"{_assignments(stage, CONSUMER)} {shlex.quote(sys.executable)} {shlex.quote(str(example('consumer.py')))} "
            f"--endpoints {places.endpoints} --topic telemetry --group mine"
        ),
    )
    yield from stage.stack.env().items()


def _command(stage: Stage, script: str, service: str, places: Places, port: int) -> str:
    path = shlex.quote(str(example(script)))
    return (
        f"{_assignments(stage, service)} {shlex.quote(sys.executable)} {path} "
        f"--host {places.v5_host} --port {port} --messages 1"
    )


def _assignments(stage: Stage, service: str) -> str:
    endpoint = stage.receiver.http_endpoint
    return f"OTEL_SERVICE_NAME={service} OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}"


def _watch(console: Console, receiver: OtlpReceiver, colours: Colours) -> None:
    """Print the traces that come in, once nothing more has been added to them for a moment; a few of many."""
    traces, known = Traces(), 0
    changed: dict[str, float] = {}
    shown = {span.trace_id for span in receiver.spans}
    while True:
        spans = receiver.spans
        traces.add(spans[known:])
        now = time.monotonic()
        changed |= {span.trace_id: now for span in spans[known:] if span.trace_id not in shown}
        known = len(spans)
        settled = [trace_id for trace_id, when in changed.items() if now - when > _SETTLE_SECONDS]
        whole = [
            trace_id for trace_id in settled if any(n.span.service == CONSUMER for n in traces.trace(trace_id).nodes)
        ]
        for trace_id in whole[:_AT_ONCE]:
            console.print(trace_panel(traces.trace(trace_id), time.strftime("%H:%M:%S"), colours))
        if len(whole) > _AT_ONCE:
            console.print(f"[dim]… and {len(whole) - _AT_ONCE} more traces[/]")
        shown.update(settled)
        for trace_id in settled:
            del changed[trace_id]
        time.sleep(_POLL_SECONDS)
