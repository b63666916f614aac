"""The threads other than the main one: a CPU timer each, whose ticks go to the sampling thread."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from spanbridge_profiling.clocks import Timers, clock_of, cpu_ns

_PRUNE_AT = 64
"""Timers from which on those of threads that have ended are looked for."""


@dataclass(slots=True)
class Watched:
    """A thread. ``seen_ns`` is its CPU time at the last sample."""

    ident: int
    name: str
    clock: int
    timer: ctypes.c_void_p
    seen_ns: int

    def spent(self) -> int | None:
        """CPU time since the last call, in nanoseconds; None when the thread has ended."""
        try:
            now = cpu_ns(self.clock)
        except OSError:
            return None
        spent, self.seen_ns = now - self.seen_ns, now
        return spent


class Threads:
    """Threads that tick. ``told`` is the kernel's identifier of the thread that is told of it; to be set first."""

    def __init__(self, timers: Timers, period_ns: int) -> None:
        self.told = 0
        self._timers = timers
        self._period_ns = period_ns
        self._watched: dict[int, Watched] = {}
        self._known: set[int] = set()
        self._number = 0
        self._lock = threading.Lock()
        self.unwatched = 0
        """Threads that could not be watched: no more timers."""

    @property
    def count(self) -> int:
        """How many are watched."""
        return len(self._watched)

    def find(self) -> None:
        """Watch all threads that :mod:`threading` knows, forget those that have ended."""
        with self._lock:
            self._prune()
            for thread in threading.enumerate():
                self._add(thread)

    def add(self, thread: threading.Thread) -> None:
        """Watch one that has just begun. Never raises."""
        with self._lock:
            if len(self._watched) > max(_PRUNE_AT, 2 * threading.active_count()):
                self._prune()
            self._add(thread)

    def get(self, value: int) -> Watched | None:
        """The thread of a tick."""
        return self._watched.get(value)

    def clear(self) -> None:
        """Watch none."""
        with self._lock:
            for one in self._watched.values():
                self._timers.delete(one.timer)
            self._watched.clear()
            self._known.clear()

    def _add(self, thread: threading.Thread) -> None:
        native, ident = thread.native_id, thread.ident
        if native is None or ident is None or native in self._known or isinstance(thread, OwnThread):
            return
        if thread is threading.main_thread():
            return
        clock = clock_of(native)
        try:
            spent = cpu_ns(clock)
        except OSError:  # it has ended already
            return
        self._number += 1
        try:
            timer = self._timers.start(clock, self._period_ns, told=self.told, value=self._number)
        except OSError:
            self.unwatched += 1
            return
        self._watched[self._number] = Watched(ident, thread.name, clock, timer, spent)
        self._known.add(native)

    def _prune(self) -> None:
        alive = sys._current_frames()
        ended = [value for value, one in self._watched.items() if one.ident not in alive or not _lives(one.clock)]
        del alive
        for value in ended:
            self._timers.delete(self._watched.pop(value).timer)
        self._known = {~(one.clock >> 3) for one in self._watched.values()}


class OwnThread(threading.Thread):
    """A thread of the profiler's: it is not sampled."""


def _lives(clock: int) -> bool:
    with contextlib.suppress(OSError):
        cpu_ns(clock)
        return True
    return False


class Beginnings:
    """Tells of threads as they begin, by a wrapper of ``Thread.start``."""

    def __init__(self) -> None:
        self._told: Callable[[threading.Thread], None] | None = None
        self._original: Callable[[threading.Thread], None] | None = None
        self._wrapper: Callable[[threading.Thread], None] | None = None

    def tell(self, told: Callable[[threading.Thread], None]) -> None:
        """Call ``told`` with each thread that has begun, in the thread that started it."""
        self._told = told
        if self._wrapper is not None:  # somebody's wrapper of ours: it is in place
            return
        original = self._original = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            original(thread)
            if self._told is not None:
                self._told(thread)

        start.__wrapped__ = original  # type: ignore[attr-defined]
        self._wrapper = start
        threading.Thread.start = start  # type: ignore[assignment, method-assign]

    def end(self) -> None:
        """Tell no more. The method is given back unless somebody has wrapped it since."""
        self._told = None
        if self._original is not None and threading.Thread.start is self._wrapper:
            threading.Thread.start = self._original  # type: ignore[assignment, method-assign]
            self._original = self._wrapper = None
