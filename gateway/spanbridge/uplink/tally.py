"""What became of one route's messages, for /status and metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spanbridge.core.routes import Route

if TYPE_CHECKING:
    from spanbridge.uplink.intake import Intake


class Tally:
    """Counts of one route and one source. ``last_ns`` is Unix time of the last message, 0 for never.

    ``filter`` names the route in metrics; ``trust`` tells whether its devices' contexts are believed. ``told`` is how
    many of ``received`` the metrics know.
    """

    __slots__ = ("dropped", "filter", "intake", "last_ns", "received", "rejected", "sent", "spooled", "told", "trust")

    def __init__(self, intake: Intake, filter_: str, *, trust: bool) -> None:
        self.intake = intake
        self.filter = filter_
        self.trust = trust
        self.received = 0
        self.told = 0
        self.sent = 0
        self.spooled = 0
        self.rejected: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.last_ns = 0


class Tallies:
    """The tallies of one source, by the filters of its routes."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._by_filter: dict[str, Tally] = {}

    def of_route(self, route: Route) -> Tally:
        """The tally of a route. Its policy may be another than the last time."""
        tally = self.get(route.filter.text, trust=route.trust)
        tally.trust = route.trust
        return tally

    def get(self, filter_: str, *, trust: bool = True) -> Tally:
        """The tally under a filter."""
        tally = self._by_filter.get(filter_)
        if tally is None:
            tally = self._by_filter[filter_] = Tally(self._intake, filter_, trust=trust)
        return tally

    def all(self) -> dict[str, Tally]:
        """All of them by filter."""
        return self._by_filter
