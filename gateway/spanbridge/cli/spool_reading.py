"""The directory of a spool, opened by a command: of messages, or of dead letters."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from spanbridge.cli import exits
from spanbridge.cli.running import complain
from spanbridge.core import spooled as form
from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.spooled import Lost, Record, Spooled, SpooledError
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.errors import SpoolFault, fault_of
from spanbridge.spool.store import Store, StoreLimits
from spanbridge.spool.versions import DEAD_LETTERS

if TYPE_CHECKING:
    from spanbridge.config.models.spool import SpoolSection

_CHUNK = 1024


def directory(config: Path, path: Path | None) -> Path:
    """The spool's directory: ``path``, or what the configuration says."""
    return path if path is not None else _configured(config).path


def _configured(config: Path) -> SpoolSection:
    from spanbridge.config import examine  # noqa: PLC0415

    report = examine(config, os.environ)
    if report.config is None:
        fail(f"{config} has errors: `spanbridge check -c {config}` tells them, --path DIR needs no configuration")
    if report.config.spool is None:
        fail(f"{config} has no [spool]: --path DIR names a directory")
    if report.config.gateway.workers > 1:
        fail(f"each worker has a spool of its own: --path {report.config.spool.path}/worker-1 names one")
    return report.config.spool


def reading(config: Path, path: Path | None, *, rejected: bool = False) -> Store:
    """The store of messages, or of dead letters, to be read: also while a gateway uses it."""
    spool = directory(config, path)
    if rejected and spool.is_dir() and not (spool / DEAD_LETTERS).is_dir():
        fail(f"{spool} holds no dead letters")
    return opened(spool / DEAD_LETTERS if rejected else spool, read_only=True)


def opened(path: Path, *, read_only: bool) -> Store:
    """The store in a directory. It ends the command when it cannot be opened."""
    tries = 3  # the gateway that uses it may remove a file between two looks
    while True:
        tries -= 1
        try:
            return Store(RealDisk(path), StoreLimits(), read_only=read_only)
        except OSError as error:
            fail(f"{path}: {fault_of(error, 'opening the spool')}")
        except SpanbridgeError as error:
            if not tries or not isinstance(error, SpoolFault):
                fail(f"{path}: {error}")


def records(store: Store) -> Iterator[Record | Lost]:
    """What a store holds, oldest first."""
    cursor = store.cursor()
    try:
        while found := store.read(cursor, _CHUNK, 1 << 20):
            yield from found
    except SpoolFault as error:
        fail(str(error))


def decoded(record: Record) -> Spooled | None:
    """The message of a record; None: it is none."""
    try:
        return form.decode(record.body)
    except SpooledError:
        return None


def letters(store: Store, reasons: Sequence[str]) -> Iterator[tuple[Record, Spooled]]:
    """Messages that can be read, with their records; with ``reasons`` those rejected for one of them only."""
    for one in records(store):
        spooled = decoded(one) if isinstance(one, Record) else None
        if spooled is None:
            complain(f"message {one[0]} cannot be read and is left out")
        elif isinstance(one, Record) and (not reasons or spooled.reason in reasons):
            yield one, spooled


def moment(unix_ns: int) -> str:
    """Unix time for people."""
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).isoformat(timespec="seconds")


def print_json(content: Any) -> None:
    """Print it."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def fail(message: str, code: int = exits.FAILURE) -> NoReturn:
    """End the command with a line."""
    complain(message)
    raise typer.Exit(code)
