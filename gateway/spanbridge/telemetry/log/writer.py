"""Standard error and standard output written without ever waiting for their reader.

A pipe that nobody reads takes 64 KiB and then blocks whoever writes next, for ever. Here a thread does the waiting;
what comes meanwhile waits in a bounded queue, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import queue
import select
import sys
import threading
from collections.abc import Callable

_EXIT = 1.0
"""Seconds that the end of the process may take for what waits."""
_POLL = 1.0

Notice = Callable[[int], str]
"""Makes the line that says how many were dropped."""


class LineWriter:
    """Writes to one file descriptor from a thread of its own, started with the first line at the latest.

    ``capacity`` is in bytes. The thread is a daemon that uses the descriptor itself: a Python stream has a lock, and a
    thread that hangs with it ends the process with an abort.
    """

    def __init__(self, fd: int, notice: Notice, *, capacity: int = 1024 * 1024) -> None:
        self._fd = fd
        self.notice = notice
        self._capacity = capacity
        # Its ``put`` may be called again while it runs, as from a finaliser or a signal handler.
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._put = 0
        self._taken = 0
        self._dropped = 0
        self._told = 0
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines that nobody will see."""
        return self._dropped

    def write(self, text: str) -> bool:
        """Take whole lines; False when they are dropped. Never waits, never raises."""
        try:
            data = text.encode("utf-8", "backslashreplace")
            waiting = self._put - self._taken
            if waiting and waiting + len(data) > self._capacity:
                self._dropped += 1
                return False
            self._put += len(data)
            self._queue.put(data)
            self.start()
        except Exception:  # noqa: BLE001 - there is no other place to say it
            self._dropped += 1
            return False
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was taken so far is written, at most ``timeout`` seconds. Blocks: not for the loop."""
        if self._thread is None or not self._thread.is_alive():
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout)

    def start(self) -> None:
        """Start the thread, which waits for it: better done before there is an event loop. Idempotent."""
        if self._thread is not None and self._thread.is_alive():  # it is not in a forked child
            return
        self._thread = threading.Thread(target=self._run, name=f"write-fd-{self._fd}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            written = self._write(item)
            self._taken += len(item)
            if not written:
                self._dropped += 1
            elif self._told < self._dropped and self._put == self._taken:
                count, self._told = self._dropped - self._told, self._dropped
                self._write(self.notice(count).encode())

    def _write(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody who shares it made it non-blocking
                select.select((), (self._fd,), (), _POLL)
            except OSError:  # no reader any more, a full disk: nothing ends, and the next line is tried again
                return False
        return True


_writers: dict[int, LineWriter] = {}


def writer(fd: int, notice: Notice, *, capacity: int = 1024 * 1024) -> LineWriter:
    """The process's writer for a descriptor; what waits at the end of the process has a second to leave."""
    found = _writers.get(fd)
    if found is None:
        found = _writers[fd] = LineWriter(fd, notice, capacity=capacity)
        atexit.register(found.flush, _EXIT)
    found.notice = notice
    return found


def standard(stream: object, fd: int) -> bool:
    """Whether a stream is the process's own on ``fd``: not replaced by a test, a notebook or a service wrapper."""
    try:
        return bool(stream.fileno() == fd)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


def fill_closed_descriptors() -> None:
    """Put the null device where standard input, output or error is closed, as after ``2>&-``.

    Else the next file or socket gets that number, and whatever a library writes to standard error goes into it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)


def is_terminal(stream: object) -> bool:
    """Whether people watch a stream; a closed or missing one is watched by nobody."""
    try:
        return stream is not None and bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


def write_out(text: str, notice: Notice, *, capacity: int) -> bool:
    """Write lines to standard output; False when they are dropped. Never waits for its reader."""
    stream = sys.stdout
    if stream is None:
        return False
    if standard(stream, 1):
        return writer(1, notice, capacity=capacity).write(text)
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return False
    return True
