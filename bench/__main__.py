"""``python -m bench``: the end-to-end benchmark. Tables, then, as the last line, one JSON object."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.environment import place_on
from bench.modes import MODES
from bench.payload import SIZE
from bench.processes import ChildError
from bench.procstat import machine
from bench.remoting import RemotingError
from bench.report import last_line, print_report, summary
from bench.revision import Code, RevisionError, checked_out
from bench.rounds import QUICK, Rounds, cases
from bench.run import Timing
from bench.shapes import PLAIN, QUEUES, SHAPES
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack import Devstack
from spanbridge.devstack.jars import DEFAULT_VERSION


def main() -> int:
    """Run the benchmark; 0 when it ran to the end, whether or not the promises are met."""
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # brokers end and worktrees go as after an error
    console = Console(width=None if sys.stdout.isatty() else 120)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        with checked_out(options.against) if options.against else nullcontext(None) as against:
            return _run(console, options, against)
    except RevisionError as error:
        console.print(f"[red]--against {options.against}:[/] {error}")
    except (ChildError, RemotingError) as error:
        console.print(f"[red]the benchmark stopped:[/] {error}")
    return 1


def _run(console: Console, options: argparse.Namespace, against: Code | None) -> int:
    round_of = cases(options.shape or (), options.only or (), against)
    timing = QUICK if options.quick else replace(Timing(), load=options.seconds)
    brief = QUICK if options.quick else Timing.brief(options.seconds)
    facts = machine()
    with ExitStack() as exits:
        directory = exits.enter_context(_directory(options.logs))
        receiver = exits.enter_context(OtlpReceiver(decode=False))
        stack = exits.enter_context(Devstack.up(full_speed=True))
        place = place_on(
            stack, [case.shape for case in round_of], Path(directory), receiver.environment("http/protobuf")
        )
        setup = _setup(stack, timing)
        runs = Rounds(place, receiver, timing, brief, console).measure(round_of, options.runs)
        sections = {} if options.only or options.shape else _sections(stack)
    print_report(console, runs)
    print(last_line(summary(runs, facts, setup, sections)), flush=True)
    return 0


def _directory(logs: Path | None) -> AbstractContextManager[str]:
    """Where configurations and logs go: kept when somewhere was named."""
    if logs is None:
        return tempfile.TemporaryDirectory(prefix="spanbridge-bench-")
    logs.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(logs))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=None, help="runs of each, interleaved (default 3, quick 1)")
    parser.add_argument("--seconds", type=float, default=Timing().load, help="measured seconds under load, of each run")
    parser.add_argument("--only", action="append", choices=[mode.name for mode in MODES], help="this mode; repeatable")
    parser.add_argument(
        "--shape", action="append", choices=[one.name for one in SHAPES], help="this shape of work; repeatable"
    )
    parser.add_argument("--against", metavar="REV", help="run the gateway of this commit in the same rounds")
    parser.add_argument("--quick", action="store_true", help="one short run of each: shows that it works, not how fast")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep configurations and logs of all processes here")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 3)
    return options


def _setup(stack: Devstack, timing: Timing) -> dict[str, Any]:
    return {
        "mqtt_broker": stack.mqtt_v5.kind,
        "rocketmq": DEFAULT_VERSION,
        "payload_bytes": SIZE,
        "mqtt_topics": PLAIN.devices,
        "rocketmq_queues": QUEUES,
        "measured_s": timing.load,
        "latency_rate": timing.rate,
    }


def _sections(stack: Devstack) -> dict[str, Any]:
    """Benchmarks of other parts, each a module with ``measure() -> dict``: their own member in the JSON object."""
    found = {}
    for name in ("instrumentation",):
        if importlib.util.find_spec(f"bench.{name}") is not None:
            found[name] = importlib.import_module(f"bench.{name}").measure(stack)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
