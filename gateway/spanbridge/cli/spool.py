"""``spanbridge spool``: look into the spool of a gateway that runs or is stopped, and mend it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from spanbridge.cli import exits
from spanbridge.cli.running import DEFAULT_FILE, complain
from spanbridge.core import spooled as form
from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.spooled import Lost, Record, SpooledError
from spanbridge.core.spooled_json import from_json, to_json
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.errors import SpoolFault, fault_of
from spanbridge.spool.store import Store, StoreLimits

if TYPE_CHECKING:
    from spanbridge.config.models.spool import SpoolSection

ConfigFile = Annotated[
    Path,
    typer.Option("-c", "--config", metavar="FILE", envvar="SPANBRIDGE_CONFIG", help="Configuration file (TOML)."),
]
Directory = Annotated[
    Path | None, typer.Option("--path", metavar="DIR", help="The spool's directory, instead of the configuration's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_CHUNK = 1024


def build() -> typer.Typer:
    """The commands."""
    app = typer.Typer(
        help="Look into the spool: messages on disk while RocketMQ is away.",
        epilog="Example: spanbridge spool stats -c spanbridge.toml",
        no_args_is_help=True,
    )
    app.command("ls", epilog="Example: spanbridge spool ls")(ls)
    app.command(epilog="Example: spanbridge spool stats --json | jq .messages")(stats)
    app.command(epilog="Example: spanbridge spool verify")(verify)
    app.command(epilog="Example: spanbridge spool export > messages.jsonl")(export)
    app.command(epilog="Example: spanbridge spool replay messages.jsonl")(replay)
    app.command(epilog="Example: spanbridge spool purge --yes")(purge)
    return app


def ls(config: ConfigFile = DEFAULT_FILE, path: Directory = None, as_json: AsJson = False) -> None:
    """List the spool's files with the numbers of their messages."""
    store = _reading(config, path)
    rows = []
    for index, segment in enumerate(store.segments):
        after = store.segments[index + 1].first if index + 1 < len(store.segments) else store.next
        undone = max(0, after - max(segment.first, store.watermark))
        rows.append({"file": str(segment.name), "first": segment.first, "undone": undone, "bytes": segment.size})
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        sys.stdout.write(f"{row['file']}  {row['undone']:>9} message(s)  {row['bytes']:>11} bytes\n")
    sys.stdout.write(f"{len(rows)} file(s), {store.next - store.watermark} message(s), {store.size} bytes\n")


def stats(config: ConfigFile = DEFAULT_FILE, path: Directory = None, as_json: AsJson = False) -> None:
    """Print how much the spool holds, and since when."""
    store = _reading(config, path)
    first = next((one for one in _records(store) if isinstance(one, Record)), None)
    oldest = None if first is None else _decoded(first)
    received = None if oldest is None else _moment(oldest.publish.received_ns)
    found = {
        "messages": store.next - store.watermark,
        "bytes": store.size,
        "files": len(store.segments),
        "first": store.watermark,
        "next": store.next,
        "oldest_received": received,
    }
    if as_json:
        _print_json(found)
        return
    for name, value in found.items():
        sys.stdout.write(f"{name.replace('_', ' ')}: {value if value is not None else '-'}\n")


def verify(config: ConfigFile = DEFAULT_FILE, path: Directory = None, as_json: AsJson = False) -> None:
    """Read every message and tell which cannot be read.

    Exit codes: 0 all can be read, 1 some cannot.
    """
    good, spoiled, lost = 0, 0, []
    for one in _records(_reading(config, path)):
        if isinstance(one, Lost):
            lost.append({"first": one.first, "last": one.end - 1})
        elif _decoded(one) is None:
            spoiled += 1
        else:
            good += 1
    count = spoiled + sum(missing["last"] - missing["first"] + 1 for missing in lost)
    if as_json:
        _print_json({"readable": good, "lost": count, "ranges": lost})
    else:
        for missing in lost:
            sys.stdout.write(f"cannot be read: {missing['first']} to {missing['last']}\n")
        sys.stdout.write(f"{good} message(s) can be read, {count} cannot\n")
    if count:
        raise typer.Exit(exits.FAILURE)


def export(config: ConfigFile = DEFAULT_FILE, path: Directory = None) -> None:
    """Print the messages as JSON lines, oldest first. They stay where they are."""
    for one in _records(_reading(config, path)):
        spooled = None if isinstance(one, Lost) else _decoded(one)
        if spooled is None:
            complain(f"message {one[0]} cannot be read and is left out")
        elif isinstance(one, Record):
            sys.stdout.write(json.dumps({"number": one.number, **to_json(spooled)}, ensure_ascii=False) + "\n")


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, as export prints them; - for stdin.")],
    config: ConfigFile = DEFAULT_FILE,
    path: Directory = None,
) -> None:
    """Put exported messages at the end of the spool of a stopped gateway, which sends them when it starts."""
    section = _section(config, path)
    try:
        lines = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        batch = [
            (form.MESSAGE, form.encode(from_json(json.loads(line)))) for line in lines.splitlines() if line.strip()
        ]
    except OSError as error:
        _fail(f"cannot read {file}: {(error.strerror or str(error)).lower()}")
    except (ValueError, SpooledError) as error:
        _fail(f"{file}: {error}")
    store = _open(section, read_only=False)
    try:
        for at in range(0, len(batch), _CHUNK):
            store.commit(batch[at : at + _CHUNK])
    except SpanbridgeError as error:
        _fail(str(error))
    finally:
        store.close()
    sys.stdout.write(f"{len(batch)} message(s) are in the spool; the gateway sends them when it starts\n")


def purge(
    config: ConfigFile = DEFAULT_FILE,
    path: Directory = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. What is in there is lost.")] = False,
) -> None:
    """Remove every message from the spool of a stopped gateway."""
    section = _section(config, path)
    store = _open(section, read_only=not yes)
    count = store.next - store.watermark
    if not yes:
        _fail(f"{count} message(s) would be lost: --yes removes them", exits.USAGE)
    try:
        store.mark(store.next, tidy=True)
    except SpanbridgeError as error:
        _fail(str(error))
    finally:
        store.close()
    sys.stdout.write(f"removed {count} message(s)\n")


def _reading(config: Path, path: Path | None) -> Store:
    return _open(_section(config, path), read_only=True)


def _open(section: tuple[Path, StoreLimits], *, read_only: bool) -> Store:
    path, limits = section
    tries = 3  # the gateway that uses it may remove a file between two looks
    while True:
        tries -= 1
        try:
            return Store(RealDisk(path), limits, read_only=read_only)
        except OSError as error:
            _fail(f"{path}: {fault_of(error, 'opening the spool')}")
        except SpanbridgeError as error:
            if not tries or not isinstance(error, SpoolFault):
                _fail(f"{path}: {error}")


def _section(config: Path, path: Path | None) -> tuple[Path, StoreLimits]:
    """The directory and its limits."""
    if path is not None:
        return path, StoreLimits()
    section = _configured(config)
    limits = StoreLimits(segment=section.segment_bytes, total=section.max_bytes, reserve=section.reserve)
    return section.path, limits


def _configured(config: Path) -> SpoolSection:
    from spanbridge.config import examine  # noqa: PLC0415

    report = examine(config, os.environ)
    if report.config is None:
        _fail(f"{config} has errors: `spanbridge check -c {config}` tells them, --path DIR needs no configuration")
    if report.config.spool is None:
        _fail(f"{config} has no [spool]: --path DIR names a directory")
    if report.config.gateway.workers > 1:
        _fail(f"each worker has a spool of its own: --path {report.config.spool.path}/worker-1 names one")
    return report.config.spool


def _records(store: Store) -> Iterator[Record | Lost]:
    cursor = store.cursor()
    try:
        while found := store.read(cursor, _CHUNK, 1 << 20):
            yield from found
    except SpoolFault as error:
        _fail(str(error))


def _decoded(record: Record) -> form.Spooled | None:
    try:
        return form.decode(record.body)
    except SpooledError:
        return None


def _moment(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).isoformat(timespec="seconds")


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def _fail(message: str, code: int = exits.FAILURE) -> NoReturn:
    complain(message)
    raise typer.Exit(code)
