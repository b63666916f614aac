"""Fakes of what everything needs: time, and somebody who takes events."""

from __future__ import annotations

from typing import Any

from spanbridge.core.events import Event


class StandingTime:
    """Time that stands still until the test moves it. ``set`` is what Unix time was set forward by."""

    def __init__(self) -> None:
        self.now = 1_000_000_000
        self.set = 0

    def now_ns(self) -> int:
        return self.now + self.set

    def monotonic_ns(self) -> int:
        return self.now


class FakeReporter:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def of(self, name: str) -> list[Any]:
        """The events of a name."""
        return [event for event in self.events if event.name == name]
