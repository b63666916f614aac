"""What was sampled: collected while the process runs, taken as a profile."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from spanbridge_profiling.spans import NO_SPAN, UNKNOWN
from spanbridge_profiling.stacks import Codes, Frame, Stack

_MOST_KINDS = 20_000
"""Different samples (stack, span, thread) between two takes. What comes beyond is counted, not kept."""
_Key = tuple[Stack, tuple[int, int], str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU time that one stack took. ``frames`` has the innermost first; ``trace_id`` is 0 where no span ran.

    ``note`` is what the code worked on, where a peek could tell; ``count`` is how often it was seen. ``labels`` are
    those of a profile that was read back.
    """

    frames: tuple[Frame, ...]
    trace_id: int
    span_id: int
    thread: str
    note: str
    count: int
    cpu_ns: int
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Counts:
    """Samples by what is known of their span. ``lost`` are those that were not kept, for want of room or by a fault."""

    linked: int = 0
    without_span: int = 0
    unknown: int = 0
    lost: int = 0

    @property
    def total(self) -> int:
        """All samples."""
        return self.linked + self.without_span + self.unknown + self.lost

    def add(self, other: Counts) -> None:
        """Count those as well."""
        self.linked += other.linked
        self.without_span += other.without_span
        self.unknown += other.unknown
        self.lost += other.lost


@dataclass(frozen=True, slots=True)
class Profile:
    """The samples of some time. Times are Unix time and durations, in nanoseconds."""

    started_ns: int
    duration_ns: int
    period_ns: int
    samples: tuple[Sample, ...] = ()
    counts: Counts = field(default_factory=Counts)

    @property
    def cpu_ns(self) -> int:
        """CPU time of all samples."""
        return sum(sample.cpu_ns for sample in self.samples)


class Collection:
    """Samples of one observer, from the start of sampling, or the last take, to the next."""

    def __init__(self, codes: Codes, period_ns: int) -> None:
        self._codes = codes
        self._period_ns = period_ns
        self._kinds: dict[_Key, list[int]] = {}
        self._late: deque[tuple[_Key, int]] = deque(maxlen=1000)
        self.forked()
        self._counts = Counts()
        self._began()

    def forked(self) -> None:
        """In the child of a fork: whoever held the lock is gone."""
        self._lock = threading.Lock()
        self._filled = threading.Lock()
        self._filled.acquire()

    def add(self, stack: Stack, span: tuple[int, int], thread: str, note: str, cpu_ns: int) -> None:
        """Take one sample. A signal handler calls this, so it waits for nobody: it may have interrupted the holder."""
        key = (stack, span, thread, note)
        if self._lock.acquire(blocking=False):
            try:
                self._count(key, cpu_ns)
            finally:
                self._lock.release()
        else:
            self._late.append((key, cpu_ns))
        self.wake()

    def lost(self) -> None:
        """One sample could not be taken."""
        self._counts.lost += 1

    def wait(self) -> None:
        """Wait until there is a sample. Nothing wakes the calling thread before."""
        self._filled.acquire()

    def wake(self) -> None:
        """End :meth:`wait`. It takes no lock that the code under a signal handler may hold."""
        if self._filled.locked():
            try:
                self._filled.release()
            except RuntimeError:  # somebody was faster
                return

    def take(self) -> Profile:
        """What has come together. The collection begins anew."""
        with self._lock:
            while self._late:
                self._count(*self._late.popleft())
            kinds, counts = self._kinds, self._counts
            self._kinds, self._counts = {}, Counts()
            started, since = self._started_ns, self._since_ns
            self._began()
        samples = tuple(self._sample(key, *values) for key, values in kinds.items())
        return Profile(started, time.monotonic_ns() - since, self._period_ns, samples, counts)

    def _began(self) -> None:
        self._started_ns = time.time_ns()
        self._since_ns = time.monotonic_ns()

    def _count(self, key: _Key, cpu_ns: int) -> None:
        values = self._kinds.get(key)
        if values is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._counts.lost += 1
                return
            values = self._kinds[key] = [0, 0]
        values[0] += 1
        values[1] += cpu_ns
        if key[1] == NO_SPAN:
            self._counts.without_span += 1
        elif key[1] == UNKNOWN:
            self._counts.unknown += 1
        else:
            self._counts.linked += 1

    def _sample(self, key: _Key, count: int, cpu_ns: int) -> Sample:
        stack, span, thread, note = key
        trace_id, span_id = NO_SPAN if span == UNKNOWN else span
        return Sample(self._codes.read(stack), trace_id, span_id, thread, note, count, cpu_ns)
