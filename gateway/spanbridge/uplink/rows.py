"""What /status and /livez show of the uplink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spanbridge.core.routes import Route
from spanbridge.core.spooled import HERE
from spanbridge.ports import Clock
from spanbridge.uplink.backpressure import Backpressure
from spanbridge.uplink.dead_letters import DeadLetters
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.recipe import UNROUTABLE, Partitions
from spanbridge.uplink.sender import Sender
from spanbridge.uplink.spill import Spill
from spanbridge.uplink.tally import Tally

_STUCK_AFTER = 30.0
"""Seconds that a message may be in nobody's hands before that is taken for a fault."""


class UplinkRows:
    """Reads the uplink's parts. ``routes`` has the routes of each source, a live view."""

    def __init__(
        self,
        routes: Mapping[Intake, Sequence[Route]],
        sender: Sender,
        partitions: Partitions,
        load: Backpressure,
        clock: Clock,
        *,
        spill: Spill | None,
        dead_letters: DeadLetters | None,
    ) -> None:
        self.former: list[Tally] = []
        """Tallies of sources that are gone."""
        self.former_received = 0
        self._routes_of = routes
        self._sender = sender
        self._partitions = partitions
        self._load = load
        self._clock = clock
        self._spill = spill
        self._dead_letters = dead_letters
        self._lost_ns: int | None = None

    @property
    def _intakes(self) -> Sequence[Intake]:
        return list(self._routes_of)

    def stuck(self) -> str | None:
        """Why messages wait that nobody works on, which no pause or retry will end; None while all is well.

        A message that waits is in a partition or in a request. One that is in flight and in neither is stuck.
        """
        lost = self._nobodys()
        now = self._clock.monotonic_ns()
        if not lost:
            self._lost_ns = None
            return None
        self._lost_ns = self._lost_ns or now
        seconds = (now - self._lost_ns) / 1e9
        return f"messages of {lost!r} are in nobody's hands for {seconds:.0f} s" if seconds >= _STUCK_AFTER else None

    def _nobodys(self) -> str | None:
        working = [outgoing.delivery for outgoing in self._sender.sending()]
        if self._spill is not None:
            working += [outgoing.delivery for outgoing in self._spill.writing + self._spill.queue]
        if self._dead_letters is not None:
            working += self._dead_letters.waiting
        working += [outgoing.delivery for partition in self._partitions.all() for outgoing in partition.pending]
        for intake in self._intakes:
            oldest = intake.source.oldest_ns()
            mine = [delivery.arrived_ns for delivery in working if delivery.source is intake.source]
            if oldest is not None and (not mine or oldest < min(mine)):
                return intake.source.name
        return None

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""
        tallies = [tally for intake in self._intakes for tally in intake.tallies.all().values()] + self.former
        sender, load = self._sender, self._load
        age = None if not sender.last_error_ns else round((self._clock.now_ns() - sender.last_error_ns) / 1e9, 1)
        return {
            "received": self.former_received + sum(intake.received for intake in self._intakes),
            "sent": sum(tally.sent for tally in tallies),
            "rejected": sum(tally.rejected.total() for tally in tallies),
            "dropped": sum(tally.dropped.total() for tally in tallies),
            "requests_in_flight": sender.requests,
            "in_flight": load.in_flight,
            "held": load.held,
            "held_bytes": load.held_bytes,
            "oldest_unacknowledged_s": round(load.oldest_age(), 3),
            "paused": load.paused,
            "last_error": sender.last_error,
            "last_error_age_s": age,
        }

    def routes(self) -> list[dict[str, Any]]:
        """For /status: each source's routes with what became of their messages, and what no route took."""
        return [row for intake, routes in self._routes_of.items() for row in self._route_rows(intake, routes)]

    def batches(self) -> dict[str, Any]:
        """For /status: requests to RocketMQ since the start."""
        tally = self._sender.tally
        return {
            "stored": tally.stored,
            "failed": tally.failed,
            "messages": tally.messages,
            "stored_ns": tally.stored_ns,
        }

    def _route_rows(self, intake: Intake, routes: Sequence[Route]) -> list[dict[str, Any]]:
        settings = self._load.settings
        named: dict[str, tuple[str, str | None]] = {}
        named |= {route.filter.text: (route.name, route.topic.text) for route in routes}
        tallies = intake.tallies.all()
        for filter_ in {UNROUTABLE, "#"} & tallies.keys():  # tallies of routes that were taken out are left out
            named.setdefault(filter_, (UNROUTABLE, settings.unroutable_topic))
        now = self._clock.now_ns()
        rows = []
        for filter_, (name, topic) in named.items():
            tally = tallies.get(filter_) or Tally(intake, filter_, trust=True)
            rows.append(
                {
                    "source": intake.source.name,
                    "name": name,
                    "filter": filter_,
                    "topic": topic,
                    "received": tally.received,
                    "sent": tally.sent,
                    "rejected": tally.rejected.total(),
                    "dropped": tally.dropped.total(),
                    "reasons": dict(tally.rejected + tally.dropped),
                    "rejected_topic": HERE if settings.rejected_here else settings.rejected_topic,
                    "last_s": round(max(0, now - tally.last_ns) / 1e9, 1) if tally.last_ns else None,
                }
            )
        return rows
