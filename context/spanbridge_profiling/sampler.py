"""The sampler: who used the CPU, in which code, for which span.

The main thread samples itself: its CPU timer sends SIGPROF to it, and Python runs the handler between two instructions
of whatever task runs, in that task's context. Other threads cannot be interrupted so. Their timers wake one sampling
thread, which looks at the thread that ticked. All timers count CPU time: nothing happens while nothing runs.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import CodeType, FrameType

from spanbridge_profiling import clocks
from spanbridge_profiling.clocks import ClocksUnavailable, Timers
from spanbridge_profiling.contexts import ContextsUnavailable, ThreadContexts
from spanbridge_profiling.profile import Collection
from spanbridge_profiling.spans import NO_SPAN, UNKNOWN, running_span
from spanbridge_profiling.stacks import Codes, Peek
from spanbridge_profiling.threads import Beginnings, OwnThread, Threads, Watched

DEFAULT_RATE = 25
"""Samples per second of CPU time of a thread (docs/adr/0143)."""


class ProfilingUnavailable(Exception):  # noqa: N818 - a state of the process rather than a fault
    """The process cannot be profiled. The message says why."""


class Sampler:
    """Samples the process while somebody collects. One per process; to be made on the main thread.

    ``rate`` is samples per second of CPU time, for each thread. ``peeks`` read what the frames of some functions work
    on.
    """

    def __init__(self, rate: int = DEFAULT_RATE, *, peeks: Mapping[CodeType, Peek] | None = None) -> None:
        """Get ready; nothing is sampled yet.

        :raises ProfilingUnavailable: not Linux, not the main thread, or somebody else takes SIGPROF.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ProfilingUnavailable("it has to be set up on the main thread, which alone takes signals")
        try:
            self._timers = Timers()
        except ClocksUnavailable as error:
            raise ProfilingUnavailable(str(error)) from None
        _check_signal()
        self.unread: str | None = None
        """Why the spans of threads other than the main one cannot be told; None where they can."""
        self._contexts: ThreadContexts | None = None
        try:
            self._contexts = ThreadContexts()
        except ContextsUnavailable as error:
            self.unread = str(error)
        self._period_ns = 1_000_000_000 // rate
        self._codes = Codes(peeks)
        self._collections: tuple[Collection, ...] = ()
        self._lock = threading.Lock()
        self._beginnings = Beginnings()
        self._worker: _Worker | None = None
        self._main = threading.get_native_id()
        self._seen_ns = 0
        self._main_timer: ctypes.c_void_p | None = None
        # It stays: a signal that is on its way when the handler is taken off would end the process.
        signal.signal(clocks.SIGNAL, self._on_tick)
        signal.siginterrupt(clocks.SIGNAL, False)
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self._exit)  # the interpreter takes its handlers off at its end: a tick would kill the process

    @property
    def runs(self) -> bool:
        """Whether somebody collects."""
        return bool(self._collections)

    @property
    def watched(self) -> int:
        """Threads beside the main one that are looked after."""
        worker = self._worker
        return 0 if worker is None else worker.threads.count

    def open(self) -> Collection:
        """Begin to collect.

        :raises OSError: the system has no more timers or files.
        """
        collection = Collection(self._codes, self._period_ns)
        with self._lock:
            first = not self._collections
            self._collections = (*self._collections, collection)
            try:
                if first:
                    self._start()
            except OSError:
                self._collections = ()
                raise
        return collection

    def close(self, collection: Collection) -> None:
        """Collect no more there. Sampling ends with the last collection. Idempotent."""
        with self._lock:
            left = tuple(one for one in self._collections if one is not collection)
            ended = bool(self._collections) and not left
            self._collections = left
            if ended:
                self._stop()

    def find_threads(self) -> None:
        """Look for threads that were not started by :mod:`threading`, but have met it since."""
        worker = self._worker
        if worker is not None:
            worker.threads.find()

    def _start(self) -> None:
        clock = clocks.clock_of(self._main)
        self._seen_ns = clocks.cpu_ns(clock)
        worker = self._worker = _Worker(self._timers, self._period_ns, self._look)
        try:
            worker.begin()
            self._main_timer = self._timers.start(clock, self._period_ns, told=self._main)
        except OSError:
            worker.end()
            raise
        worker.threads.find()
        self._beginnings.tell(worker.threads.add)

    def _stop(self) -> None:
        self._beginnings.end()
        if self._main_timer is not None:
            self._timers.delete(self._main_timer)
            self._main_timer = None
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def _exit(self) -> None:
        for collection in self._collections:
            self.close(collection)

    def _forked(self) -> None:
        """In the child: timers and the sampling thread stayed with the parent."""
        self._lock = threading.Lock()
        self._main = threading.get_native_id()
        self._main_timer = None
        collections = self._collections
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.forget()
        for one in collections:
            one.forked()
            one.take()
        if collections:
            try:
                self._start()
            except OSError:
                self._collections = ()

    def _on_tick(self, _signal: int, frame: FrameType | None) -> None:
        """A tick of the main thread, in the context of the code that it interrupts. Never raises, never waits."""
        collections = self._collections
        if not collections:
            return
        try:
            now = time.thread_time_ns()
            spent, self._seen_ns = now - self._seen_ns, now
            stack, note = self._codes.walk(frame)
            span = running_span()
            for one in collections:
                one.add(stack, span, "MainThread", note, spent)
        except Exception:  # noqa: BLE001 - it would be raised in the code that was interrupted
            for one in collections:
                one.lost()

    def _look(self, thread: Watched, frame: FrameType | None) -> None:
        """Sample another thread. Runs on the sampling thread."""
        spent = thread.spent()
        if spent is None or frame is None:
            for one in self._collections:
                one.lost()
            return
        stack, note = self._codes.walk(frame)
        span = self._span_of(thread.ident)
        for one in self._collections:
            one.add(stack, span, thread.name, note, spent)

    def _span_of(self, thread: int) -> tuple[int, int]:
        if self._contexts is None:
            return UNKNOWN
        context = self._contexts.of(thread)
        # A context can be entered once; its copy has the same values, and copying takes no time.
        return NO_SPAN if context is None else context.copy().run(running_span)


def _check_signal() -> None:
    """See that nobody else takes the signal. A sampler that does nothing any more gives way.

    :raises ProfilingUnavailable: somebody does.
    """
    handler = signal.getsignal(clocks.SIGNAL)
    owner = getattr(handler, "__self__", None)
    if isinstance(owner, Sampler):
        if owner.runs:
            raise ProfilingUnavailable("it is profiled already")
    elif handler not in (signal.SIG_DFL, signal.SIG_IGN):
        raise ProfilingUnavailable("somebody else takes SIGPROF, probably another profiler")


class _Worker:
    """The sampling thread: waits for ticks of other threads, and looks at those that ticked."""

    def __init__(self, timers: Timers, period_ns: int, look: Callable[[Watched, FrameType | None], None]) -> None:
        self.threads = Threads(timers, period_ns)
        self._look = look
        self._ends = False
        self._ready = threading.Event()
        self._descriptor = timers.open()
        self._thread = OwnThread(target=self._run, name="spanbridge-profiling", daemon=True)

    def begin(self) -> None:
        """Start, and wait until it listens."""
        self._thread.start()
        self._ready.wait()
        self.threads.told = self._thread.native_id or 0

    def end(self) -> None:
        """End the thread and all timers."""
        self.threads.clear()
        self._ends = True
        if self._thread.is_alive():
            signal.pthread_kill(self._thread.ident or 0, clocks.END)
            self._thread.join()
        self.forget()

    def forget(self) -> None:
        """Close what is open. In the child of a fork there is no thread to end."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {clocks.SIGNAL, clocks.END})
        self._ready.set()
        while not self._ends:
            self._turn(clocks.read_ticks(self._descriptor))

    def _turn(self, ticks: set[int]) -> None:
        frames = sys._current_frames()
        for value in ticks:
            thread = self.threads.get(value)
            if thread is not None:
                self._look(thread, frames.get(thread.ident))
