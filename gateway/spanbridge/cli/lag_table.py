"""How the lag looks: a table on a terminal, one line each when piped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.text import Text

    from spanbridge.lag import LagReading, TopicLag

_MEANS: Final = {"not_delivered": "not delivered", "not_acknowledged": "not acknowledged", "unknown": "unknown"}
_STATES: Final = {
    "consumed": "",
    "no_consumer": "brokers know no consumer",
    "never_committed": "never committed",
    "no_group": "no such group",
    "no_topic": "no such topic",
    "unreadable": "could not be read",
}
_HOME: Final = "\x1b[H\x1b[2J"
"""Cursor to the top, screen empty (ECMA-48: CUP, ED)."""


def show_lag(reading: LagReading, *, stream: TextIO, queues: bool = False, clear: bool = False) -> None:
    """Write one reading. ``clear`` puts it in the place of the one before, on a terminal."""
    if not stream.isatty():
        for row in reading.rows:
            for line in _lines(row, reading, queues=queues):
                stream.write(line + "\n")
        stream.writelines(f"{line}\n" for line in _remarks(reading))
    else:
        if clear:
            stream.write(_HOME)
        _show_table(reading, stream, queues=queues)
    stream.flush()


def _lines(row: TopicLag, reading: LagReading, *, queues: bool) -> Iterator[str]:
    lag = "-" if row.lag is None else str(row.lag)
    notes = "; ".join(_notes(row, reading))
    text = f"{row.group}: {row.topic}: lag {lag} ({_MEANS[row.means]}){_oldest(row.age, row.lag)}"
    yield f"{text}: {notes}" if notes else text
    if queues:
        for queue in row.queues:
            behind = "-" if queue.lag is None else str(queue.lag)
            place = f"{queue.queue.broker}/{queue.queue.queue}"
            yield f"{row.group}: {row.topic}: {place}: lag {behind}{_oldest(queue.age, queue.lag)}"


def _show_table(reading: LagReading, stream: TextIO, *, queues: bool) -> None:
    from rich import box  # noqa: PLC0415 - on terminals only
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    moment = datetime.fromtimestamp(reading.at_ns / 1e9).astimezone()
    table = Table(
        box=box.ROUNDED,
        title=f"consumer lag at {moment:%H:%M:%S} ({reading.requests} requests, {reading.took:.2f} s)",
        title_justify="left",
    )
    table.add_column("group", style="bold", overflow="fold")
    table.add_column("topic", overflow="fold")
    if queues:
        table.add_column("queue", overflow="fold")
    table.add_column("lag", justify="right", no_wrap=True)
    table.add_column("oldest", justify="right", no_wrap=True)
    table.add_column("counts what is", overflow="fold")
    table.add_column("remarks", ratio=1, overflow="fold")
    for row in reading.rows:
        _add(table, row, reading, queues=queues)
    console = Console(file=stream, highlight=False)
    console.print(table)
    for remark in _remarks(reading):
        console.print(remark, markup=False, soft_wrap=True)


def _add(table: Any, row: TopicLag, reading: LagReading, *, queues: bool) -> None:
    from rich.text import Text  # noqa: PLC0415

    notes = Text("; ".join(_notes(row, reading)))
    cells: list[Text | str] = [Text(row.group), Text(row.topic)]
    cells += [""] if queues else []
    table.add_row(*cells, _number(row.lag), _age(row.age, row.lag), _MEANS[row.means], notes)
    if queues:
        for queue in row.queues:
            place = Text(f"{queue.queue.broker}/{queue.queue.queue}")
            table.add_row("", "", place, _number(queue.lag), _age(queue.age, queue.lag), "", "")


def _number(lag: int | None) -> Text:
    from rich.text import Text  # noqa: PLC0415

    return Text("-", style="yellow") if lag is None else Text(f"{lag:,}", style="bold" if lag else "dim")


def _notes(row: TopicLag, reading: LagReading) -> Iterator[str]:
    if row.error is not None:
        yield row.error
        return
    if state := _STATES[row.state]:
        yield state
    if row.retry:
        yield "waits for redelivery"
    if row.uncommitted and all(queue.committed is None for queue in row.queues):
        yield f"the topic holds {row.uncommitted:,}"
    elif row.uncommitted:
        yield f"{row.uncommitted:,} in queues it never committed in"
    if row.expired:
        yield f"{row.expired:,} deleted before it got them"
    dead = reading.dead_letters.get(row.group)
    if dead and not row.retry:
        yield f"{dead:,} dead letters"


def _remarks(reading: LagReading) -> Iterator[str]:
    if not reading.rows:
        yield "no consumer group found"
    elif any(row.lag is not None and row.means == "not_delivered" for row in reading.rows):
        yield "not delivered: what consumers hold and have not acknowledged is not counted (docs/lag.md)"
    shown = {row.error for row in reading.rows}
    yield from (f"could not be read: {text}" for text, _ in reading.errors if text not in shown)


def _oldest(age: float | None, lag: int | None) -> str:
    return f", oldest {text}" if (text := _age(age, lag)) else ""


def _age(age: float | None, lag: int | None) -> str:
    if age is None:
        return "-" if lag else ""
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if age >= 2 * seconds:
            return f"{age / seconds:.0f} {unit}"
    return f"{age:.0f} s"
