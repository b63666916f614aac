"""The uplink: sources on one side, the sink on the other, bounds between them, and an orderly stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from spanbridge.core.batch import BatchLimits
from spanbridge.core.message import Publish
from spanbridge.core.routes import Route, RouteTable, TopicFilter
from spanbridge.core.template import Template
from spanbridge.ports import Clock, Reporter, Sink, Source
from spanbridge.telemetry import Peer, Tracer, UplinkMetrics
from spanbridge.uplink import events
from spanbridge.uplink.intake import Intake, Tally
from spanbridge.uplink.plan import UNROUTABLE, Lanes, Planner
from spanbridge.uplink.sender import Sender


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkSettings:
    """Bounds and extra destinations.

    ``gateway`` names this one in ``spanbridge.path``. ``max_in_flight`` (messages) and ``max_in_flight_bytes`` bound
    what was received and is not acknowledged: above, the sockets of sources that hold their share are not read.
    ``unroutable_topic`` takes what no route takes, ``rejected_topic`` whatever else can never be forwarded as it is.
    """

    gateway: str
    max_in_flight: int = 4096
    max_in_flight_bytes: int = 32 << 20
    limits: BatchLimits = field(default_factory=BatchLimits)
    unroutable_topic: str | None = None
    rejected_topic: str | None = None


class Uplink:
    """MQTT to RocketMQ."""

    def __init__(
        self,
        sink: Sink,
        *,
        tracer: Tracer,
        metrics: UplinkMetrics,
        reporter: Reporter,
        clock: Clock,
        settings: UplinkSettings,
    ) -> None:
        self._sink = sink
        self._tracer = tracer
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._settings = settings
        self._lanes = Lanes(settings.limits)
        self._intakes: list[Intake] = []
        self._routes: list[tuple[Intake, list[Route]]] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self.sender = Sender(
            sink, tracer=tracer, metrics=metrics, reporter=reporter, clock=clock, settled=self._relieve
        )

    def attach(self, source: Source, routes: Iterable[Route], peer: Peer) -> None:
        """Add a source before :meth:`run`. ``peer`` describes its broker, and names us there.

        :raises RouteError: two of the routes match the same topics.
        """
        mine = [route for route in routes if route.source in (None, source.name)]
        table = RouteTable(_with_catch_all(mine, self._settings.unroutable_topic))
        planner = Planner(table, self._sink, self._tracer, self._lanes, gateway=self._settings.gateway, peer=peer)
        intake = Intake(
            source,
            planner,
            self._sink,
            tracer=self._tracer,
            metrics=self._metrics,
            reporter=self._reporter,
            clock=self._clock,
            submit=self.sender.submit,
            rejected_topic=self._settings.rejected_topic,
        )
        self._intakes.append(intake)
        self._routes.append((intake, mine))

    async def run(self) -> None:
        """Forward until :meth:`drain`; returns when every source has closed."""
        async with asyncio.TaskGroup() as group:
            for intake in self._intakes:
                group.create_task(self._run_source(intake), name=f"source {intake.source.name}")

    async def _run_source(self, intake: Intake) -> None:
        def deliver(publishes: list[Publish]) -> None:
            intake.deliver(publishes)
            self._hold(intake)

        def connected() -> None:
            intake.connected()
            self._relieve()  # less is held, and it may be long until something else is settled

        await intake.source.run(deliver, connected)

    async def drain(self, deadline: float) -> int:
        """Stop in the order a message passes: intake, batches, acknowledgements. ``deadline`` in seconds.

        Returns how many messages stay unsent with the MQTT broker.
        """
        sources = [intake.source for intake in self._intakes]
        await asyncio.gather(*(source.stop_intake() for source in sources))
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._empty.wait()
        await self.abandon()
        if self.in_flight:
            self._reporter.report(events.DrainIncomplete(count=self.in_flight))
        await asyncio.gather(*(source.close() for source in sources))
        return self.in_flight

    async def abandon(self) -> None:
        """Stop sending, whatever is unsent: most stays with the MQTT brokers, the rest is counted. Idempotent."""
        await self.sender.stop()
        for intake in self._intakes:
            intake.abandon()

    @property
    def in_flight(self) -> int:
        """Messages received and not settled."""
        return sum(intake.ledger.unsettled for intake in self._intakes)

    @property
    def held(self) -> int:
        """Messages in our hands: those in flight, and those whose acknowledgement waits for an earlier message."""
        return sum(intake.ledger.held for intake in self._intakes)

    @property
    def held_bytes(self) -> int:
        """Bytes of the messages in our hands, in RocketMQ's encoding."""
        return sum(intake.ledger.held_bytes for intake in self._intakes)

    @property
    def paused(self) -> bool:
        """Whether a socket is not read because as much is held as may be."""
        return any(intake.paused for intake in self._intakes)

    def oldest_age(self) -> float:
        """Seconds that the oldest unsettled message has waited; 0 when none does."""
        oldest = [age for intake in self._intakes if (age := intake.ledger.oldest_ns()) is not None]
        return max(0.0, (self._clock.monotonic_ns() - min(oldest)) / 1e9) if oldest else 0.0

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""
        return {
            "received": sum(intake.received for intake in self._intakes),
            "sent": self.sender.sent,
            "dropped": sum(tally.dropped for intake in self._intakes for tally in intake.tallies.values()),
            "requests_in_flight": self.sender.requests,
            "in_flight": self.in_flight,
            "held": self.held,
            "held_bytes": self.held_bytes,
            "oldest_unacknowledged_s": round(self.oldest_age(), 3),
            "paused": self.paused,
            "last_error": self.sender.last_error,
        }

    def routes(self) -> list[dict[str, Any]]:
        """For /status: each source's routes with what became of their messages, and what no route took."""
        return [row for intake, routes in self._routes for row in self._route_rows(intake, routes)]

    def batches(self) -> dict[str, Any]:
        """For /status: requests to RocketMQ since the start."""
        tally = self.sender.tally
        return {
            "stored": tally.stored,
            "failed": tally.failed,
            "messages": tally.messages,
            "stored_ns": tally.stored_ns,
        }

    def _route_rows(self, intake: Intake, routes: Sequence[Route]) -> list[dict[str, Any]]:
        named: dict[str, tuple[str, str | None]] = {}
        named |= {route.filter.text: (route.name, route.topic.text) for route in routes}
        for filter_ in intake.tallies:
            named.setdefault(filter_, (UNROUTABLE, self._settings.unroutable_topic))
        now = self._clock.now_ns()
        rows = []
        for filter_, (name, topic) in named.items():
            tally = intake.tallies.get(filter_) or Tally()
            age = round(max(0, now - tally.last_ns) / 1e9, 1) if tally.last_ns else None
            counts = {"received": tally.received, "sent": tally.sent, "dropped": tally.dropped}
            source = intake.source.name
            rows.append({"source": source, "name": name, "filter": filter_, "topic": topic, **counts, "last_s": age})
        return rows

    def _hold(self, intake: Intake) -> None:
        """Stop reading when enough is in flight: brokers overrun Receive Maximum, so the socket is the bound."""
        if intake.ledger.unsettled:
            self._empty.clear()
        settings = self._settings
        if not intake.paused and self._over(intake, settings.max_in_flight, settings.max_in_flight_bytes):
            intake.paused = True
            intake.source.pause()

    def _relieve(self) -> None:
        """Read again when a quarter is free: not at every message, or pausing would be all we do."""
        if not self.in_flight:
            self._empty.set()
        settings = self._settings
        messages, size = settings.max_in_flight * 3 // 4 + 1, settings.max_in_flight_bytes * 3 // 4 + 1
        for intake in self._intakes:
            if intake.paused and not self._over(intake, messages, size):
                intake.paused = False
                intake.source.resume()

    def _over(self, intake: Intake, messages: int, size: int) -> bool:
        """Whether all sources together hold so much, and this one its share: one that is stuck must not stop others."""
        ledger, shares = intake.ledger, len(self._intakes)
        if ledger.held * shares >= messages and self.held >= messages:
            return True
        return ledger.held_bytes * shares >= size and self.held_bytes >= size


def _with_catch_all(routes: Sequence[Route], topic: str | None) -> list[Route]:
    if topic is None or any(route.filter.mqtt == "#" for route in routes):
        return list(routes)
    catch_all = Route(name=UNROUTABLE, filter=TopicFilter.parse("#"), topic=Template.parse(topic))
    return [*routes, catch_all]
