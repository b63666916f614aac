"""``spanbridge spool``: look into the spool of a gateway that runs or is stopped, and have messages sent again."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from spanbridge.cli import exits
from spanbridge.cli.running import DEFAULT_FILE
from spanbridge.cli.spool_reading import (
    decoded,
    directory,
    fail,
    letters,
    moment,
    opened,
    print_json,
    reading,
    records,
)  # fmt: skip
from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.spooled import Lost, Record, SpooledError
from spanbridge.core.spooled_json import from_json, to_json
from spanbridge.core.text import quoted
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.inbox import Errand, SpoolInbox
from spanbridge.spool.store import Store
from spanbridge.spool.versions import DEAD_LETTERS

ConfigFile = Annotated[
    Path,
    typer.Option("-c", "--config", metavar="FILE", envvar="SPANBRIDGE_CONFIG", help="Configuration file (TOML)."),
]
Directory = Annotated[
    Path | None, typer.Option("--path", metavar="DIR", help="The spool's directory, instead of the configuration's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Rejected = Annotated[bool, typer.Option("--rejected", help="Dead letters instead of messages that wait.")]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="REASON", help="Only what was rejected for this reason; may be repeated."),
]


def build() -> typer.Typer:
    """The commands."""
    app = typer.Typer(
        help="Look into the spool: messages on disk while RocketMQ is away, and dead letters.",
        epilog="Example: spanbridge spool stats -c spanbridge.toml",
        no_args_is_help=True,
    )
    app.command("ls", epilog="Example: spanbridge spool ls --rejected")(ls)
    app.command(epilog="Example: spanbridge spool stats --json | jq .messages")(stats)
    app.command(epilog="Example: spanbridge spool verify")(verify)
    app.command(epilog="Example: spanbridge spool export > messages.jsonl")(export)
    app.command(epilog="Example: spanbridge spool replay --rejected --reason too_large")(replay)
    app.command(epilog="Example: spanbridge spool purge --yes")(purge)
    return app


def ls(
    config: ConfigFile = DEFAULT_FILE, path: Directory = None, as_json: AsJson = False, rejected: Rejected = False
) -> None:
    """List the spool's files with the numbers of their messages, or dead letters one by one."""
    store = reading(config, path, rejected=rejected)
    if rejected:
        _list_letters(store, as_json=as_json)
        return
    rows = []
    for index, segment in enumerate(store.segments):
        after = store.segments[index + 1].first if index + 1 < len(store.segments) else store.next
        undone = max(0, after - max(segment.first, store.watermark))
        rows.append({"file": str(segment.name), "first": segment.first, "undone": undone, "bytes": segment.size})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        sys.stdout.write(f"{row['file']}  {row['undone']:>9} message(s)  {row['bytes']:>11} bytes\n")
    sys.stdout.write(f"{len(rows)} file(s), {store.next - store.watermark} message(s), {store.size} bytes\n")


def _list_letters(store: Store, *, as_json: bool) -> None:
    rows = [
        {
            "number": record.number,
            "rejected": moment(spooled.spooled_ns),
            "reason": spooled.reason,
            "topic": spooled.publish.topic,
            "bytes": len(spooled.publish.payload),
            "error": spooled.error,
        }
        for record, spooled in letters(store, ())
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        sys.stdout.write(f"{row['number']}  {row['rejected']}  {row['reason']}  {quoted(str(row['topic']))}  ")
        sys.stdout.write(f"{row['bytes']} bytes  {quoted(str(row['error']))}\n")
    sys.stdout.write(f"{len(rows)} dead letter(s), {store.size} bytes\n")


def stats(
    config: ConfigFile = DEFAULT_FILE, path: Directory = None, as_json: AsJson = False, rejected: Rejected = False
) -> None:
    """Print how much there is, and since when."""
    store = reading(config, path, rejected=rejected)
    first = next((one for one in records(store) if isinstance(one, Record)), None)
    oldest = None if first is None else decoded(first)
    found: dict[str, Any] = {
        "messages": store.next - store.watermark,
        "bytes": store.size,
        "files": len(store.segments),
        "first": store.watermark,
        "next": store.next,
        "oldest_received": None if oldest is None else moment(oldest.publish.received_ns),
    }
    if rejected:
        found["oldest_rejected"] = None if oldest is None else moment(oldest.spooled_ns)
        found["reasons"] = dict(Counter(spooled.reason for _, spooled in letters(store, ())))
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        text = ", ".join(f"{reason} {count}" for reason, count in value.items()) if isinstance(value, dict) else value
        sys.stdout.write(f"{name.replace('_', ' ')}: {'-' if text in (None, '') else text}\n")


def verify(
    config: ConfigFile = DEFAULT_FILE, path: Directory = None, as_json: AsJson = False, rejected: Rejected = False
) -> None:
    """Read every message and tell which cannot be read.

    Exit codes: 0 all can be read, 1 some cannot.
    """
    good, spoiled, lost = 0, 0, []
    for one in records(reading(config, path, rejected=rejected)):
        if isinstance(one, Lost):
            lost.append({"first": one.first, "last": one.end - 1})
        elif decoded(one) is None:
            spoiled += 1
        else:
            good += 1
    count = spoiled + sum(missing["last"] - missing["first"] + 1 for missing in lost)
    if as_json:
        print_json({"readable": good, "lost": count, "ranges": lost})
    else:
        for missing in lost:
            sys.stdout.write(f"cannot be read: {missing['first']} to {missing['last']}\n")
        sys.stdout.write(f"{good} message(s) can be read, {count} cannot\n")
    if count:
        raise typer.Exit(exits.FAILURE)


def export(
    config: ConfigFile = DEFAULT_FILE, path: Directory = None, rejected: Rejected = False, reason: Reasons = None
) -> None:
    """Print the messages as JSON lines, oldest first. They stay where they are."""
    for record, spooled in letters(reading(config, path, rejected=rejected), reason or ()):
        sys.stdout.write(json.dumps({"number": record.number, **to_json(spooled)}, ensure_ascii=False) + "\n")


def replay(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="JSON lines, as export prints them; - for stdin.")
    ] = None,
    config: ConfigFile = DEFAULT_FILE,
    path: Directory = None,
    rejected: Rejected = False,
    reason: Reasons = None,
) -> None:
    """Have exported messages, or dead letters, sent again: by the gateway that runs, or when it starts.

    Dead letters that are sent again are removed from among them.
    """
    if (file is not None) == rejected:
        fail("give a FILE, or --rejected: what is to be sent again", exits.USAGE)
    if file is not None and reason:
        fail("--reason goes with --rejected: leave lines out of the file instead", exits.USAGE)
    inbox = SpoolInbox(directory(config, path))
    if file is not None:
        lines = _lines(file)
        what: Errand | list[dict[str, Any]] = lines
        text = f"{len(lines)} message(s)"
    else:
        count = sum(1 for _ in letters(reading(config, path, rejected=True), reason or ()))
        what = Errand("replay", tuple(reason or ()))
        text = f"{count} dead letter(s)"
    _leave(inbox, what)
    sys.stdout.write(f"{text} are to be sent again: within seconds by the gateway that runs, or when it starts\n")


def _lines(file: Path) -> list[dict[str, Any]]:
    """The messages of a file. It ends the command when one of them is none."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        for line in lines:
            from_json(line)
    except OSError as error:
        fail(f"cannot read {file}: {(error.strerror or str(error)).lower()}")
    except (ValueError, SpooledError) as error:
        fail(f"{file}: {error}")
    return lines


def _leave(inbox: SpoolInbox, what: Errand | list[dict[str, Any]]) -> None:
    try:
        inbox.leave(what)
    except SpanbridgeError as error:
        fail(f"{inbox.path}: {error}")


def purge(
    config: ConfigFile = DEFAULT_FILE,
    path: Directory = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. What is in there is lost.")] = False,
    rejected: Rejected = False,
) -> None:
    """Remove every message from the spool of a stopped gateway, or the dead letters of any."""
    store = reading(config, path, rejected=rejected)
    what, count = "dead letter(s)" if rejected else "message(s)", store.next - store.watermark
    store.close()
    if not yes:
        fail(f"{count} {what} would be lost: --yes removes them", exits.USAGE)
    spool = directory(config, path)
    if rejected and _is_used(spool / DEAD_LETTERS):
        _leave(SpoolInbox(spool), Errand("purge"))
        sys.stdout.write(f"{count} {what} are to be removed: within seconds by the gateway that runs\n")
        return
    store = opened(spool / DEAD_LETTERS if rejected else spool, read_only=False)
    try:
        store.mark(store.next, tidy=True)
    except SpanbridgeError as error:
        fail(str(error))
    finally:
        store.close()
    sys.stdout.write(f"removed {count} {what}\n")


def _is_used(path: Path) -> bool:
    """Whether a gateway uses a directory."""
    disk = RealDisk(path)
    try:
        return not disk.lock()
    except OSError:
        return False  # opening it tells why
    finally:
        disk.close()
