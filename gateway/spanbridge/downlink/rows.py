"""What /status and /livez show of downlinks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spanbridge.downlink.forwarder import Forwarder
from spanbridge.ports import Clock

_STUCK_AFTER = 30.0
"""Seconds that a message may be in nobody's hands before that is taken for a fault."""


def row_of(forwarder: Forwarder, now_ns: int, age: float) -> dict[str, Any]:
    """One downlink: JSON-able. ``now_ns`` is Unix time, ``age`` of its oldest message in seconds."""
    downlink, tally = forwarder.downlink, forwarder.accounts.tally
    return {
        "name": downlink.name,
        "topic": downlink.topic,
        "group": downlink.group,
        "broker": downlink.broker,
        "publish": downlink.publish.text,
        "received": tally.received,
        "published": tally.published,
        "rejected": tally.rejected.total(),
        "dropped": tally.dropped.total(),
        "nacked": tally.nacked.total(),
        "reasons": dict(tally.rejected + tally.dropped + tally.nacked),
        "last_s": round(max(0, now_ns - tally.last_ns) / 1e9, 1) if tally.last_ns else None,
        "in_flight": forwarder.source.unacked,
        "parked": len(forwarder.parking),
        "oldest_unacknowledged_s": round(age, 3),
        "paused": forwarder.paused,
    }


class DownlinkWatch:
    """Tells how old messages are, and whether some are in nobody's hands."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, int] = {}

    def age(self, forwarder: Forwarder) -> float:
        """Seconds that the oldest message of a downlink has waited; 0 when none does."""
        oldest = forwarder.source.oldest_ns()
        return 0.0 if oldest is None else max(0.0, (self._clock.monotonic_ns() - oldest) / 1e9)

    def stuck(self, forwarders: Iterable[Forwarder]) -> str | None:
        """Why messages wait that nobody works on; None while all is well. Asked now and then."""
        now = self._clock.monotonic_ns()
        lost = {forwarder.downlink.name: why for forwarder in forwarders if (why := _lost(forwarder)) is not None}
        self._since = {name: self._since.get(name, now) for name in lost}
        for name, since in self._since.items():
            seconds = (now - since) / 1e9
            if seconds >= _STUCK_AFTER:
                return f"messages of downlink {name!r} {lost[name]} for {seconds:.0f} s"
        return None


def _lost(forwarder: Forwarder) -> str | None:
    """Why the messages of a downlink are in nobody's hands, if they are."""
    oldest = forwarder.source.oldest_ns()
    first = next(iter(forwarder.under_way), None)
    if oldest is not None and (first is None or oldest < first.delivery.arrived_ns):
        return "are in nobody's hands"
    if first is not None and not forwarder.publisher.in_flight and not len(forwarder.parking):
        return "wait for an answer that the publisher does not wait for"
    return None
