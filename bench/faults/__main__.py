"""``python -m bench.faults``: break things, count messages. A table, then, as the last line, one JSON object."""

from __future__ import annotations

import argparse
import io
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.faults.actors import Stalled
from bench.faults.front import Protocol
from bench.faults.lab import Lab, bounded
from bench.faults.ledger import Row, broken
from bench.faults.scenario import SCENARIOS, Scenario
from spanbridge.devstack import Devstack, DevstackError

for _part in ("up_rocketmq", "up_mqtt", "up_gateway", "down", "spooled"):  # their scenarios join the list
    import_module(f"bench.faults.{_part}")

_LONG = 900.0
"""Seconds more with --long."""
_MENDING = 200.0
"""Seconds for what a scenario leaves of RocketMQ to be well again."""


def main() -> int:
    """Run scenarios; 0 when every promise was kept, 1 when one was broken, 2 for a wrong argument, 130 after Ctrl-C."""
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # brokers end as after an error
    console = Console(width=None if sys.stdout.isatty() else 150)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if options.list:
        for one in SCENARIOS.values():
            console.print(f"{one.name:28} {one.what}", highlight=False)
        return 0
    wanted = [SCENARIOS[name] for name in options.only or SCENARIOS]
    rows: list[Row] = []
    try:
        _run(console, options, wanted, rows)
    except KeyboardInterrupt:
        return 130
    finally:  # also of what was ended early
        _show(console, rows, options.protocol)
    return int(any(broken(row) for row in rows))


def _show(console: Console, rows: Sequence[Row], protocol: Protocol) -> None:
    console.print(_table(rows, protocol))
    for row in rows:
        for text in broken(row):
            console.print(f"[red]{row.name}:[/] {escape(text)}")
    print(json.dumps({"protocol": protocol, "scenarios": [row.json() for row in rows]}), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults",
        description=__doc__,
        epilog='example: make faults ARGS="--only rocketmq-killed --only mqtt-hung"',
    )
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="NAME", help="this one; repeatable")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long a fault lasts whose name does not say it")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second, half as many on the way down")
    parser.add_argument("--seed", type=int, default=1, help="of what is random: moments of kills, corrupted bytes")
    parser.add_argument(
        "--protocol", choices=get_args(Protocol), default="grpc", help="what the gateway speaks to RocketMQ (grpc)"
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--kills", type=int, default=50, help="how often the gateway is killed where it is")
    parser.add_argument("--long", action="store_true", help="outages of ten minutes last ten minutes, not 20 s")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the gateways' configurations and logs here")
    return parser.parse_args()


def _run(console: Console, options: argparse.Namespace, wanted: Sequence[Scenario], rows: list[Row]) -> None:
    """Play what is wanted, and add a row for each to ``rows``."""
    with ExitStack() as exits:
        directory = options.logs or Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="spanbridge-faults-")))
        console.print("starting RocketMQ ...", highlight=False)
        stack = exits.enter_context(Devstack.up(mqtt_v5=False, mqtt_v311=False))
        for number, one in enumerate(wanted, 1):
            lab = Lab(
                rocketmq=stack.rocketmq,
                protocol=options.protocol,
                directory=Path(directory),
                seconds=options.seconds,
                rate=options.rate,
                rng=random.Random(f"{options.seed} {one.name}"),
                prefix=one.name,
                kills=options.kills,
                long=options.long,
            )
            begun = time.monotonic()
            row = _play(one, lab)
            rows.append(row)
            verdict = "[green]kept[/]" if not broken(row) else "[red]broken[/]"
            took = time.monotonic() - begun
            console.print(
                f"{number:3}/{len(wanted)} {one.name:28} {took:6.1f} s  acknowledged {row.acknowledged:6}  "
                f"lost {row.lost}  twice {row.duplicated}  {verdict}",
                highlight=False,
            )


def _play(one: Scenario, lab: Lab) -> Row:
    """One row, whatever happens: a scenario that fails does not take the others with it."""
    try:
        with bounded(one.limit + (_LONG if lab.long else 0)):
            row = one.run(lab)
    except Exception as error:
        row = Row.none(one.name, f"{type(error).__name__}: {error}")
    try:
        with bounded(_MENDING):
            lab.rocketmq.resume()
            if not lab.rocketmq.running:
                lab.rocketmq.start()
    except (Stalled, DevstackError) as error:
        row = replace(row, failed=[*row.failed, f"RocketMQ does not come back: {error}"])
    return row


def _table(rows: Sequence[Row], protocol: Protocol) -> Table:
    table = Table(title=f"Faults, protocol {protocol}")
    for title in ("scenario", "sent", "acknowledged", "delivered", "lost", "twice", "out of order", "recovery", "MiB"):
        table.add_column(title, justify="left" if title == "scenario" else "right")
    for row in rows:
        order = str(row.out_of_order) if row.order_promised else f"({row.out_of_order})"
        recovery = "" if row.recovery_s is None else f"{row.recovery_s:.1f} s"
        cells = (row.sent, row.acknowledged, row.delivered, row.lost, row.duplicated)
        table.add_row(row.name, *map(str, cells), order, recovery, f"{row.rss_max_mib:.0f}")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
