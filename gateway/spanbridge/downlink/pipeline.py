"""The downlinks of a gateway: sources on one side, publishers on the other, and an orderly stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from spanbridge.core.downlinks import Downlink
from spanbridge.core.message import Message
from spanbridge.downlink import events
from spanbridge.downlink.forwarder import Forwarder
from spanbridge.downlink.outbound import Outbound
from spanbridge.downlink.parking import DownlinkSettings
from spanbridge.downlink.recipe import DownlinkEnds
from spanbridge.downlink.rows import DownlinkWatch, row_of
from spanbridge.ports import Clock, Publisher, QueueSource, Reporter
from spanbridge.telemetry import DownlinkMetrics, Tracer

_TOTALS = ("received", "published", "rejected", "dropped", "nacked")
"""What /status sums up over all downlinks."""


class Downlinks:
    """RocketMQ to MQTT: any number of downlinks, each with a source of its own. They may share publishers."""

    def __init__(
        self,
        *,
        tracer: Tracer,
        metrics: DownlinkMetrics,
        reporter: Reporter,
        clock: Clock,
        settings: DownlinkSettings | None = None,
    ) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._settings = settings or DownlinkSettings()
        self._forwarders: dict[str, Forwarder] = {}
        self._gone: Counter[str] = Counter()
        """Totals of downlinks that were detached."""
        self._watch = DownlinkWatch(clock)
        self._running: set[int] = set()
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()

    def attach(
        self,
        downlink: Downlink,
        source: QueueSource[Message],
        publisher: Publisher[Outbound],
        ends: DownlinkEnds,
    ) -> None:
        """Add a downlink; its source and its publisher run as long as this does.

        :raises ValueError: there is one of that name.
        """
        if downlink.name in self._forwarders:
            raise ValueError(f"there is a downlink {downlink.name!r} already")
        forwarder = Forwarder(
            downlink,
            source,
            publisher,
            ends=ends,
            settings=self._settings,
            tracer=self._tracer,
            metrics=self._metrics,
            reporter=self._reporter,
            clock=self._clock,
        )
        self._forwarders[downlink.name] = forwarder
        if self._group is not None and not self._stopped.is_set():
            self._start(self._group, forwarder)

    async def detach(self, name: str, deadline: float) -> None:
        """Take nothing more for a downlink, finish what it brought within ``deadline`` seconds, then forget it.

        What is unanswered then is given back to RocketMQ. Its publisher is closed when no other downlink uses it.
        """
        forwarder = self._forwarders[name]
        await self._settle([forwarder], deadline)
        row = row_of(self._forwarders.pop(name), self._clock.now_ns(), 0.0)
        self._gone.update({total: row[total] for total in _TOTALS})
        publisher = forwarder.publisher
        if all(other.publisher is not publisher for other in self._forwarders.values()):
            await publisher.close()
            self._running.discard(id(publisher))
        await forwarder.source.close()

    def use(
        self,
        downlinks: Iterable[Downlink],
        *,
        ends: Mapping[str, DownlinkEnds] | None = None,
        settings: DownlinkSettings | None = None,
    ) -> None:
        """Handle messages of downlinks that are attached like this from now on. ``ends`` are by their names.

        What is under way goes where it was meant to go.
        """
        self._settings = settings or self._settings
        changed = {downlink.name: downlink for downlink in downlinks}
        for name, forwarder in self._forwarders.items():
            downlink = changed.get(name, forwarder.downlink)
            forwarder.use(downlink, (ends or {}).get(name, forwarder.ends), self._settings)

    async def run(self) -> None:
        """Forward until :meth:`drain`; returns when every source and publisher has closed."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._stopped.wait(), name="downlinks stop")
            for forwarder in self._forwarders.values():
                self._start(group, forwarder)

    def _start(self, group: asyncio.TaskGroup, forwarder: Forwarder) -> None:
        publisher, source = forwarder.publisher, forwarder.source
        if id(publisher) not in self._running:
            self._running.add(id(publisher))
            group.create_task(publisher.run(), name=f"publisher {publisher.name}")
        running = source.run(forwarder.deliver, forwarder.relieve)
        group.create_task(running, name=f"downlink {forwarder.downlink.name}")

    async def drain(self, deadline: float) -> int:
        """Stop in the order in which a message passes: intake, answers of the MQTT brokers, acknowledgements.

        ``deadline`` is in seconds. What is unanswered then is given back to RocketMQ at once. Returns how much that is.
        """
        self._stopped.set()
        forwarders = list(self._forwarders.values())
        left = await self._settle(forwarders, deadline)
        publishers = {id(forwarder.publisher): forwarder.publisher for forwarder in forwarders}
        await asyncio.gather(*(publisher.close() for publisher in publishers.values()))
        await asyncio.gather(*(forwarder.source.close() for forwarder in forwarders))
        return left

    async def _settle(self, forwarders: Sequence[Forwarder], deadline: float) -> int:
        """Take nothing more, wait for answers, give back what has none; returns how much that is."""
        await asyncio.gather(*(forwarder.source.stop_intake() for forwarder in forwarders))
        for forwarder in forwarders:
            forwarder.relieve()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await asyncio.gather(*(forwarder.empty.wait() for forwarder in forwarders))
        left = 0
        for forwarder in forwarders:
            await forwarder.stop()
            unanswered = forwarder.source.unacked
            if unanswered:
                left += unanswered
                self._reporter.report(events.DownlinkIncomplete(downlink=forwarder.downlink.name, count=unanswered))
        await asyncio.gather(*(forwarder.source.give_back() for forwarder in forwarders))
        return left

    @property
    def in_flight(self) -> int:
        """Messages received and not answered."""
        return sum(forwarder.source.unacked for forwarder in self._forwarders.values())

    @property
    def paused(self) -> bool:
        """Whether a downlink receives nothing because it holds as much as it may."""
        return any(forwarder.paused for forwarder in self._forwarders.values())

    def oldest_age(self) -> float:
        """Seconds that the oldest message in flight has waited; 0 when none does."""
        return max((self._watch.age(forwarder) for forwarder in self._forwarders.values()), default=0.0)

    def stuck(self) -> str | None:
        """Why messages wait that nobody works on, which no pause or retry will end; None while all is well."""
        return self._watch.stuck(self._forwarders.values())

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""
        rows = self.rows()
        sums = {name: self._gone[name] + sum(row[name] for row in rows) for name in _TOTALS}
        return {
            **sums,
            "in_flight": self.in_flight,
            "oldest_unacknowledged_s": round(self.oldest_age(), 3),
            "paused": self.paused,
        }

    def rows(self) -> list[dict[str, Any]]:
        """For /status: each downlink with what became of its messages."""
        now = self._clock.now_ns()
        return [row_of(forwarder, now, self._watch.age(forwarder)) for forwarder in self._forwarders.values()]

    def readings(self) -> list[tuple[str, int, float, bool]]:
        """For gauges: each downlink's name, messages in flight, age of the oldest in seconds, and whether it pauses."""
        return [
            (name, forwarder.source.unacked, self._watch.age(forwarder), forwarder.paused)
            for name, forwarder in self._forwarders.items()
        ]
