"""Exponential backoff with full jitter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays, in seconds, between attempts that keep failing.

    Full jitter (a uniform draw between zero and the exponential ceiling) spreads a fleet of gateways that all lost the
    same cluster better than equal or decorrelated jitter does (M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015). A floor of a tenth of the ceiling keeps a lucky draw from becoming a busy loop.
    """

    initial: float = 0.1
    maximum: float = 30.0
    factor: float = 2.0
    failures: int = 0

    def next_delay(self, draw: float) -> float:
        """Count a failure and return the pause before the next attempt. ``draw`` is uniform in [0, 1)."""
        ceiling = min(self.maximum, self.initial * self.factor ** min(self.failures, 64))
        self.failures += 1
        return ceiling * (0.1 + 0.9 * draw)

    def reset(self) -> None:
        """Forget the failures: the last attempt worked."""
        self.failures = 0
