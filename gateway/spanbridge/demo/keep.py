"""``--keep``: what to try while everything runs, and the traces of whatever comes through."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spanbridge.cli import invocation
from spanbridge.demo.cast import BACKEND, CONSUMER, example
from spanbridge.demo.configuration import SPARE_GROUP
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.demo.stage import Stage
from spanbridge.demo.traces import Step, Traces
from spanbridge.demo.view import Colours, trace_panel

_POLL_SECONDS = 0.25
_SETTLE_SECONDS = 0.6
_GIVE_UP_SECONDS = 60.0
_AT_ONCE = 3
_LAST = tuple(Step(service, "CONSUMER", "rocketmq") for service in (CONSUMER, BACKEND))

Rows = tuple[tuple[str, str], ...]


def next_steps() -> Rows:
    """What to type after the demonstration."""
    spanbridge = invocation.command()
    return (
        ("look around", f"{spanbridge} demo --keep"),
        ("run your own", f"{spanbridge} init && {spanbridge} check && {spanbridge} run"),
        ("brokers to try it on", f"{spanbridge} devstack up"),
    )


def print_commands(console: Console, title: str, rows: Rows) -> None:
    """Commands with what they are for; each on one line without a frame, so that it can be copied."""
    console.print(Text(f"\n{title}", "bold"))
    width = max(len(name) for name, _ in rows)
    for name, command in rows:
        console.print(Text.assemble((f"  {name:<{width}}  ", "dim"), command), soft_wrap=True)


def look_around(console: Console, stage: Stage, colours: Colours) -> None:
    """Say what can be looked at, then print each new trace until interrupted."""
    environment = stage.directory / "env"
    environment.write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in _variables(stage).items())
    )
    print_commands(console, "Everything keeps running until Ctrl-C. In another terminal:", _rows(stage, environment))
    console.print("\n[dim]Traces of what you publish and ask appear here.[/]")
    _watch(console, stage.receiver, colours)


def _variables(stage: Stage) -> dict[str, str]:
    return {**stage.stack.env(), "OTEL_EXPORTER_OTLP_ENDPOINT": stage.receiver.http_endpoint, "ADMIN": stage.admin_url}


def _rows(stage: Stage, environment: Path) -> Rows:
    python = shlex.quote(sys.executable)
    v5, v311, consumer = (shlex.quote(str(example(name))) for name in ("device_v5.py", "device_v311.py", "consumer.py"))
    ask = shlex.quote(str(example("ask.py")))
    places = stage.places
    device = f"OTEL_SERVICE_NAME=device-v5 {python} {v5} --port {places.v5_port}"
    return (
        ("first", f". {environment}"),
        ("status", "curl $ADMIN/status"),
        ("health", "curl $ADMIN/readyz"),
        ("metrics", "curl $ADMIN/metrics"),
        ("publish, v5", f"{device} --messages 1"),
        (
            "publish, v3.1.1",
            f"OTEL_SERVICE_NAME=meter-v311 {python} {v311} --port {places.v311_port} --messages 1",
        ),
        (
            "consume",
            f"OTEL_SERVICE_NAME={CONSUMER}-2 {python} {consumer} --endpoints {places.endpoints} "
            f"--topic telemetry --group {SPARE_GROUP}",
        ),
        (
            "ask a device",
            f"{device} --messages 0 --commands 1 & "
            f"OTEL_SERVICE_NAME={BACKEND} {python} {ask} --endpoints {places.endpoints} --device sensor-1",
        ),
        ("configuration", f"cat {stage.config_path}"),
        ("logs", f"tail -f {stage.directory}/*.log"),
    )


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
        whole = [trace_id for trace_id in settled if any(traces.holds(trace_id, step) for step in _LAST)]
        for trace_id in whole[:_AT_ONCE]:
            title = time.strftime("%H:%M:%S")
            console.print(trace_panel(traces.trace(trace_id), title, colours, console.width))
        if len(whole) > _AT_ONCE:
            console.print(f"[dim]… and {len(whole) - _AT_ONCE} more traces[/]")
        # Processes export at their own times: what is not whole yet may become so.
        done = {*whole, *(trace_id for trace_id in settled if now - changed[trace_id] > _GIVE_UP_SECONDS)}
        shown |= done
        for trace_id in done:
            del changed[trace_id]
        time.sleep(_POLL_SECONDS)
