"""Room in a spool that is full: the oldest messages go, where their routes would rather lose them than wait."""

from __future__ import annotations

from collections import Counter

from spanbridge.core import spooled as form
from spanbridge.core.spooled import Record, SpooledError
from spanbridge.ports import Reporter, Spool
from spanbridge.uplink import events
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.replay import Replay

REASON = "spool_full"


class Room:
    """Gives up the oldest file, and tells whose messages it held."""

    def __init__(self, spool: Spool, replay: Replay, rejects: Rejects, reporter: Reporter) -> None:
        self._spool = spool
        self._replay = replay
        self._rejects = rejects
        self._reporter = reporter

    async def make(self) -> bool:
        """Give up the oldest file, if it holds messages of such routes only; whether there is more room now."""
        found: Counter[tuple[Intake, str]] = Counter()
        size = 0

        def look(record: Record) -> None:  # on the spool's thread
            nonlocal size
            if not self._replay.waits(record.number):
                return  # it was sent, or is on its way
            try:
                spooled = form.decode(record.body)
            except SpooledError:
                return
            intake = self._replay.intake_of(spooled)
            if intake is not None:
                found[intake, intake.filter_of(spooled.publish.topic)] += 1
            if not spooled.publish.qos:
                size += len(record.body)

        gone = await self._spool.drop_oldest(look)
        if not gone:
            return False
        self._replay.qos0_bytes = max(0, self._replay.qos0_bytes - size)
        for (intake, filter_), count in found.items():
            self._rejects.count_gone(intake.tallies.get(filter_), REASON, count)
        cause = "the spool is full: the oldest messages made room"
        self._reporter.report(events.MessagesDropped(reason=REASON, cause=cause, count=found.total()))
        self._replay.dropped(gone)
        return True
