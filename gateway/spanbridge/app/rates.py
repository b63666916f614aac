"""Rates out of counters that only grow."""

from __future__ import annotations

from collections.abc import Hashable, Mapping


class Rates:
    """Growth per second between the last two readings, by key. A key that is new has grown from zero.

    Moments are monotonic, in nanoseconds: Unix time may be set between two readings.
    """

    def __init__(self, now_ns: int) -> None:
        self._at_ns = now_ns
        self._before: Mapping[Hashable, float] = {}
        self._grown: dict[Hashable, float] = {}
        self._seconds = 0.0

    def read(self, now_ns: int, counters: Mapping[Hashable, float]) -> None:
        """Take a reading."""
        self._seconds = max(1e-9, (now_ns - self._at_ns) / 1e9)
        self._grown = {key: value - self._before.get(key, 0) for key, value in counters.items()}
        self._at_ns, self._before = now_ns, dict(counters)

    def grown(self, key: Hashable) -> float:
        """How much a counter grew between the last two readings."""
        return self._grown.get(key, 0.0)

    def per_second(self, key: Hashable) -> float:
        """The same by the second, to a tenth; 0 before the first reading."""
        return round(self.grown(key) / self._seconds, 1) if self._seconds else 0.0
