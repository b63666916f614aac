"""``python -m bench.walk_gateway ARGUMENTS...``: the ``spanbridge`` command, with each call of our own code noted.

A line on standard input, the time on the monotonic clock in nanoseconds, is answered with the calls since then, as one
JSON line: ``[time, depth, file, line, name]`` each. ``depth`` counts our own callers alone: 0 is what the event loop or
a library calls.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TextIO

PACKAGES = ("spanbridge", "spanbridge_context")
KEPT = 200_000
"""Calls, the newest."""


class Notebook:
    """Notes calls of the main thread, which is the event loop's. Made for :func:`sys.setprofile`."""

    def __init__(self) -> None:
        self._calls: deque[tuple[int, int, CodeType]] = deque(maxlen=KEPT)
        self._ours: dict[CodeType, bool] = {}
        self._roots = tuple(str(root) for root in _roots())
        self._depth = 0

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """A Python function begins or goes on (``call``), ends or waits (``return``). C functions are not noted."""
        if event not in ("call", "return"):
            return
        code = frame.f_code
        ours = self._ours.get(code)
        if ours is None:
            ours = self._ours[code] = code.co_filename.startswith(self._roots)
        if not ours:
            return
        if event == "return":
            self._depth = max(0, self._depth - 1)
            return
        self._calls.append((time.monotonic_ns(), self._depth, code))
        self._depth += 1

    def since(self, begin: int) -> list[tuple[int, int, str, int, str]]:
        """The calls noted since a time in nanoseconds."""
        found = [call for call in self._calls.copy() if call[0] >= begin]
        return [(at, depth, self._short(code), code.co_firstlineno, code.co_qualname) for at, depth, code in found]

    def _short(self, code: CodeType) -> str:
        root = next(root for root in self._roots if code.co_filename.startswith(root))
        return os.path.relpath(code.co_filename, Path(root).parent)


def _roots() -> Iterator[Path]:
    for name in PACKAGES:
        for directory in __import__(name).__path__:
            yield Path(directory)


def _answer(notebook: Notebook, out: TextIO) -> None:
    for line in sys.stdin:
        out.write(json.dumps(notebook.since(int(line))) + "\n")
        out.flush()


def main() -> None:
    """Run the command in this process."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the gateway prints goes to standard error
    notebook = Notebook()
    threading.Thread(target=_answer, args=(notebook, out), daemon=True).start()
    sys.argv[0] = "spanbridge"
    from spanbridge.cli import main as command  # noqa: PLC0415

    sys.setprofile(notebook.note)
    command()


if __name__ == "__main__":
    main()
