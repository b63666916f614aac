"""`spanbridge lag`: one reading of the consumer lag, or one after the other."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spanbridge.cli import exits
from spanbridge.cli.running import DEFAULT_FILE, MissingPackageError, complain, installed
from spanbridge.core.hosts import endpoint_problem

if TYPE_CHECKING:
    from spanbridge.app.lag import LagQuery
    from spanbridge.lag import LagReading

EPILOG = (
    "Example: spanbridge lag\n\n"
    "Example: spanbridge lag billing --topic telemetry --name-server 127.0.0.1:9876 --watch\n\n"
    "Example: spanbridge lag --threshold 1000 --max-age 60 --json > lag.json"
)


def lag(  # noqa: PLR0917 - the options of a command
    groups: Annotated[
        list[str] | None, typer.Argument(metavar="GROUP", help="Consumer groups. Default: those of the file.")
    ] = None,
    config: Annotated[
        Path,
        typer.Option("-c", "--config", metavar="FILE", envvar="SPANBRIDGE_CONFIG", help="Configuration file (TOML)."),
    ] = DEFAULT_FILE,
    topics: Annotated[
        list[str] | None, typer.Option("--topic", "-t", metavar="TOPIC", help="Topic to look at; may be repeated.")
    ] = None,
    name_server: Annotated[
        str | None,
        typer.Option(
            "--name-server", "-n", metavar="HOST:PORT", help="Name server, over the file's `lag.name_servers`."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table on the screen until Ctrl-C.")] = False,
    period: Annotated[float, typer.Option(min=0.5, help="Seconds between two readings with --watch.")] = 5.0,
    threshold: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Exit with 3 if a group is more than N messages behind.")
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Exit with 3 if the oldest message behind is older than that."),
    ] = None,
    queues: Annotated[bool, typer.Option("--queues", "-q", help="One row for each queue.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --watch one line for each reading.")
    ] = False,
) -> None:
    """Show how far consumer groups are behind, and since when.

    Asks RocketMQ's name server and brokers for offsets. It reads no message and joins no group. With --name-server no
    file is needed; its access keys are used where there is one.

    Exit codes: 0 fine, 1 something could not be read, 2 wrong command line or configuration, 3 a group is further
    behind than --threshold or --max-age (a group that never committed is, where its topic holds more than N messages).
    """
    import asyncio  # noqa: PLC0415 - other commands start without it

    if name_server is not None and (problem := endpoint_problem(name_server)) is not None:
        complain(f"--name-server {name_server}: {problem}")
        raise typer.Exit(exits.USAGE)
    query = _query(config, name_server, groups or [], topics or [])
    show = _print_json if as_json else partial(_print_table, queues=queues, watch=watch)
    try:
        reading = asyncio.run(_read(query, period if watch else None, show))
    except KeyboardInterrupt:
        raise typer.Exit(exits.OK if watch else exits.INTERRUPTED) from None
    raise typer.Exit(exit_code(reading, threshold, max_age))


def exit_code(reading: LagReading, threshold: int | None, max_age: float | None) -> int:
    """What a script is told. Being behind counts more than what could not be read."""
    for row in reading.rows:
        behind = row.uncommitted if row.lag is None else row.lag
        if threshold is not None and behind > threshold:
            return exits.BEHIND
        if max_age is not None and row.age is not None and row.age > max_age:
            return exits.BEHIND
    return exits.FAILURE if reading.errors else exits.OK


def _query(file: Path, name_server: str | None, groups: list[str], topics: list[str]) -> LagQuery:
    try:
        with installed():
            from spanbridge.app.lag import lag_query  # noqa: PLC0415
            from spanbridge.cli.present import show_problems  # noqa: PLC0415
            from spanbridge.config import examine  # noqa: PLC0415
    except MissingPackageError as error:
        complain(str(error))
        raise typer.Exit(exits.USAGE) from None
    config = None
    if name_server is None or file.exists():
        report = examine(file, os.environ)
        config = report.config
        if config is None:
            show_problems(file, report, stream=sys.stderr)
            raise typer.Exit(exits.USAGE)
    query = lag_query(config, name_server, groups, topics)
    if isinstance(query, str):
        complain(query)
        raise typer.Exit(exits.USAGE)
    return query


async def _read(query: LagQuery, period: float | None, show: Callable[[LagReading], None]) -> LagReading:
    """Read and show, once or until cancelled."""
    import asyncio  # noqa: PLC0415 - see above

    from spanbridge.app.lag import lag_reader  # noqa: PLC0415

    offsets, reader = lag_reader(query)
    try:
        while True:
            reading = await reader.read()
            show(reading)
            if period is None:
                return reading
            await asyncio.sleep(period)
    finally:
        await offsets.close()


def _print_json(reading: LagReading) -> None:
    from spanbridge.lag.service import reading_as_dict  # noqa: PLC0415

    sys.stdout.write(json.dumps(reading_as_dict(reading), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _print_table(reading: LagReading, *, queues: bool, watch: bool) -> None:
    from spanbridge.cli.lag_table import show_lag  # noqa: PLC0415

    show_lag(reading, stream=sys.stdout, queues=queues, clear=watch)
