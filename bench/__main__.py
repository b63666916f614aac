"""``python -m bench``: the end-to-end benchmark. A table, then, as the last line, one JSON object."""

from __future__ import annotations

import argparse
import importlib
import importlib.resources
import importlib.util
import io
import json
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.environment import QUEUES, TOPIC, TOPICS, Place
from bench.modes import MODES, Mode
from bench.payload import SIZE
from bench.processes import ChildError
from bench.procstat import machine
from bench.remoting import RemotingError
from bench.report import last_line, print_report, summary
from bench.run import Run, Timing
from bench.stats import Measurement
from spanbridge.demo.otlp import OtlpReceiver
from spanbridge.devstack import Devstack

QUICK = Timing(idle=0.5, warm_up=0.5, load=1.0, paced=1.0)
TRIES = 2
"""Of one run, before the benchmark gives up."""


def main() -> int:
    """Run the benchmark; 0 when it ran to the end, whether or not the promises are met."""
    options = _parse()
    console = Console(width=None if sys.stdout.isatty() else 120)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    modes = [mode for mode in MODES if not options.only or mode.name in options.only]
    timing = QUICK if options.quick else replace(Timing(), load=options.seconds)
    runs: dict[str, list[Measurement]] = {mode.name: [] for mode in modes}
    facts = machine()
    with (
        _directory(options.logs) as directory,
        OtlpReceiver(decode=False) as receiver,
        Devstack.up() as stack,
    ):
        place = _place(stack, receiver, Path(directory))
        setup = _setup(stack, timing)
        try:
            _all_runs(console, place, modes, timing, options.runs, receiver, runs)
        except (ChildError, RemotingError) as error:
            console.print(f"[red]the benchmark stopped:[/] {error}")
            return 1
        sections = _sections(stack) if not options.only else {}
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
    parser.add_argument("--runs", type=int, default=None, help="runs of each mode, interleaved (default 3, quick 1)")
    parser.add_argument("--seconds", type=float, default=Timing().load, help="measured seconds under load, of each run")
    parser.add_argument("--only", action="append", choices=[mode.name for mode in MODES], help="this mode; repeatable")
    parser.add_argument("--quick", action="store_true", help="one short run of each: shows that it works, not how fast")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep configurations and logs of all processes here")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 3)
    return options


def _place(stack: Devstack, receiver: OtlpReceiver, directory: Path) -> Place:
    stack.rocketmq.create_topic(TOPIC, queues=QUEUES)
    return Place(
        mqtt_host=stack.mqtt_v5.host,
        mqtt_port=stack.mqtt_v5.port,
        rocketmq_endpoints=stack.rocketmq.endpoints,
        broker_address=f"{stack.rocketmq.host}:{stack.rocketmq.broker_port}",
        directory=directory,
        otlp=receiver.environment("http/protobuf"),
    )


def _setup(stack: Devstack, timing: Timing) -> dict[str, Any]:
    return {
        "mqtt_broker": stack.mqtt_v5.kind,
        "rocketmq": _rocketmq_version(),
        "payload_bytes": SIZE,
        "mqtt_topics": TOPICS,
        "rocketmq_queues": QUEUES,
        "measured_s": timing.load,
        "latency_rate": timing.rate,
    }


def _rocketmq_version() -> str:
    lock = importlib.resources.files("spanbridge.devstack") / "rocketmq.lock.json"
    return str(json.loads(lock.read_text())["rocketmq"])


def _all_runs(
    console: Console,
    place: Place,
    modes: list[Mode],
    timing: Timing,
    count: int,
    receiver: OtlpReceiver,
    runs: dict[str, list[Measurement]],
) -> None:
    """Round after round through all modes, so that what else the machine does hits all of them alike."""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    run_ids = iter(range(int(time.time()) & 0xFFFFFF, 1 << 32))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("warming up RocketMQ", total=len(modes) * count)

        def say(text: str) -> None:
            progress.update(task, description=text)

        _measure(
            place, modes[0], replace(QUICK, load=min(4.0, timing.load)), run_ids, receiver, say
        )  # its JVM compiles its hot paths
        for number in range(count):
            for mode in modes:
                head = f"[cyan]{mode.name}[/] {number + 1}/{count}"
                result = _measure(place, mode, timing, run_ids, receiver, lambda text, head=head: say(f"{head} {text}"))
                runs[mode.name].append(result)
                progress.console.print(
                    f"  {mode.name:<18} {result.msgs_per_s:>8,.0f} msg/s  {result.cpu_us_per_msg:>6.1f} µs  "
                    f"p50 {result.p50_ms:>5.1f} ms  p99 {result.p99_ms:>6.1f} ms  lost {result.lost:.0f}",
                    style="dim",
                    highlight=False,
                )
                progress.advance(task)


def _measure(place: Place, mode: Mode, timing: Timing, run_ids: Any, receiver: OtlpReceiver, say: Any) -> Measurement:
    for left in reversed(range(TRIES)):
        try:
            return Run(place, mode, next(run_ids), timing, say).measure(lambda: receiver.span_count)
        except ChildError:
            if not left:
                raise
    raise AssertionError


def _sections(stack: Devstack) -> dict[str, Any]:
    """Benchmarks of other parts, each a module with ``measure() -> dict``: their own member in the JSON object."""
    found = {}
    for name in ("instrumentation",):
        if importlib.util.find_spec(f"bench.{name}") is not None:
            found[name] = importlib.import_module(f"bench.{name}").measure(stack)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
