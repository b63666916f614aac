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
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.faults import uplink  # noqa: F401 - its scenarios join the list
from bench.faults.actors import Stalled
from bench.faults.lab import Lab
from bench.faults.ledger import Row
from bench.faults.scenario import SCENARIOS, Scenario
from spanbridge.devstack import Devstack, DevstackError

_RECOVERY = 5.0
"""Seconds from a peer's return to the next message, at most."""


def main() -> int:
    """Run scenarios; 0 when every promise was kept, 1 when one was broken, 2 for a wrong argument."""
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # brokers end as after an error
    console = Console(width=None if sys.stdout.isatty() else 150)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    if options.list:
        for one in SCENARIOS.values():
            console.print(f"{one.name:24} {one.what}", highlight=False)
        return 0
    wanted = [SCENARIOS[name] for name in options.only or SCENARIOS]
    rows = _run(console, options, wanted)
    console.print(_table(rows))
    for row in rows:
        for text in broken(row):
            console.print(f"[red]{row.name}:[/] {text}")
    print(json.dumps({"scenarios": [row.json() for row in rows]}), flush=True)
    return int(any(broken(row) for row in rows))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults",
        description=__doc__,
        epilog='example: make faults ARGS="--only rocketmq-killed --only mqtt-hung"',
    )
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="NAME", help="this one; repeatable")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long a fault lasts whose name does not say it")
    parser.add_argument("--seed", type=int, default=1, help="of what is random: moments of kills, corrupted bytes")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the gateways' configurations and logs here")
    return parser.parse_args()


def _run(console: Console, options: argparse.Namespace, wanted: Sequence[Scenario]) -> list[Row]:
    rows: list[Row] = []
    with ExitStack() as exits:
        directory = options.logs or Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="spanbridge-faults-")))
        console.print("starting RocketMQ ...", highlight=False)
        stack = exits.enter_context(Devstack.up(mqtt_v5=False, mqtt_v311=False))
        for number, one in enumerate(wanted, 1):
            lab = Lab(
                rocketmq=stack.rocketmq,
                directory=Path(directory),
                seconds=options.seconds,
                rng=random.Random(f"{options.seed} {one.name}"),
                prefix=one.name,
            )
            begun = time.monotonic()
            row = _play(one, lab)
            rows.append(row)
            verdict = "[green]kept[/]" if not broken(row) else "[red]broken[/]"
            took = time.monotonic() - begun
            console.print(
                f"{number:3}/{len(wanted)} {one.name:24} {took:6.1f} s  acknowledged {row.acknowledged:6}  "
                f"lost {row.lost}  twice {row.duplicated}  {verdict}",
                highlight=False,
            )
            lab.rocketmq.resume()
            if not lab.rocketmq.running:
                lab.rocketmq.start()
    return rows


def _play(one: Scenario, lab: Lab) -> Row:
    try:
        return one.play(lab, one.name)
    except (Stalled, DevstackError) as error:
        return Row(
            name=one.name, sent=0, acknowledged=0, delivered=0, lost=0, duplicated=0, out_of_order=0, recovery_s=None,
            rss_max_mib=0.0, failed=[str(error)],
        )  # fmt: skip


def broken(row: Row) -> list[str]:
    """The promises that a row breaks."""
    found = list(row.failed)
    if row.lost:
        found.append(f"{row.lost} acknowledged messages are lost")
    if row.order_promised and row.out_of_order:
        found.append(f"{row.out_of_order} messages out of order")
    if row.recovery_s is not None and row.recovery_s > _RECOVERY:
        found.append(f"{row.recovery_s:g} s from the peer's return to the next message")
    return found


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="Faults")
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
