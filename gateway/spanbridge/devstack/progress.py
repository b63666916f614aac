"""How a long download shows itself: a bar on a terminal, two plain lines elsewhere, nothing in a library."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int, int], None]
"""``advance(bytes_more, files_more)``, callable from any thread."""

Progress = Callable[[str, int, int], AbstractContextManager[Advance]]
"""``progress(what, files, size_in_bytes)`` is a context manager that gives an :data:`Advance`."""


@contextmanager
def silent(what: str, files: int, size: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _size, _files: None


@contextmanager
def plain(what: str, files: int, size: int) -> Iterator[Advance]:
    """One line before and one after, on standard error."""
    print(f"fetching {what}: {files} files, {size / 1e6:.0f} MB", file=sys.stderr, flush=True)
    start = time.monotonic()
    yield lambda _size, _files: None
    print(f"fetched in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def bar(what: str, files: int, size: int) -> Iterator[Advance]:
    """A live bar with bytes, rate and time left, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[done]}/{task.fields[files]} files"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as live:
        task = live.add_task(what, total=size, done=0, files=files)

        def advance(size_more: int, files_more: int) -> None:
            done = live.tasks[0].fields["done"] + files_more
            live.update(task, advance=size_more, done=done)

        yield advance


def for_terminal() -> Progress:
    """The bar when standard error is a terminal, else plain lines."""
    return bar if sys.stderr.isatty() else plain
