"""The uplink: sources on one side, the sink on the other, bounds between them, and an orderly stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spanbridge.core.batch import BatchLimits
from spanbridge.core.message import Publish
from spanbridge.core.routes import Route, RouteTable, TopicFilter
from spanbridge.core.template import Template
from spanbridge.ports import Clock, Reporter, Sink, Source
from spanbridge.telemetry import Peer, Tracer, UplinkMetrics
from spanbridge.uplink import events
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.plan import UNROUTABLE, Lanes, Planner
from spanbridge.uplink.sender import Sender


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkSettings:
    """Bounds and extra destinations.

    ``gateway`` names this one in ``spanbridge.path``. ``max_in_flight`` (messages) and ``max_in_flight_bytes`` bound
    what was received and is not settled: above, sockets are not read. ``unroutable_topic`` takes what no route takes,
    ``rejected_topic`` what RocketMQ will never take as it is.
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
        self._paused = False
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
            self._hold()

        await intake.source.run(deliver)

    async def drain(self, deadline: float) -> int:
        """Stop in the order a message passes: intake, batches, acknowledgements. ``deadline`` in seconds.

        Returns how many messages stay unsent with the MQTT broker.
        """
        sources = [intake.source for intake in self._intakes]
        await asyncio.gather(*(source.stop_intake() for source in sources))
        try:
            async with asyncio.timeout(deadline):
                await self._empty.wait()
        except TimeoutError:
            self._reporter.report(events.DrainIncomplete(count=self.in_flight))
        await self.sender.stop()
        await asyncio.gather(*(source.close() for source in sources))
        return self.in_flight

    @property
    def in_flight(self) -> int:
        """Messages received and not settled."""
        return sum(intake.ledger.unsettled for intake in self._intakes)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the messages received and not settled, in RocketMQ's encoding."""
        return sum(intake.ledger.unsettled_bytes for intake in self._intakes)

    def oldest_age(self) -> float:
        """Seconds that the oldest unsettled message has waited; 0 when none does."""
        oldest = [age for intake in self._intakes if (age := intake.ledger.oldest_ns()) is not None]
        return max(0.0, (self._clock.now_ns() - min(oldest)) / 1e9) if oldest else 0.0

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""
        return {
            "received": sum(intake.received for intake in self._intakes),
            "sent": self.sender.sent,
            "batches": self.sender.batches,
            "requests_in_flight": self.sender.requests,
            "in_flight": self.in_flight,
            "in_flight_bytes": self.in_flight_bytes,
            "oldest_unacknowledged_s": round(self.oldest_age(), 3),
            "paused": self._paused,
            "last_error": self.sender.last_error,
        }

    def routes(self) -> list[dict[str, Any]]:
        """For /status: each source's routes."""
        return [
            {"source": intake.source.name, "filter": route.filter.text, "topic": route.topic.text, "name": route.name}
            for intake, routes in self._routes
            for route in routes
        ]

    def _hold(self) -> None:
        """Stop reading when enough is in flight: brokers overrun Receive Maximum, so the socket is the bound."""
        waiting = self.in_flight
        if waiting:
            self._empty.clear()
        settings = self._settings
        over = waiting >= settings.max_in_flight or self.in_flight_bytes >= settings.max_in_flight_bytes
        if over and not self._paused:
            self._paused = True
            for intake in self._intakes:
                intake.source.pause()

    def _relieve(self) -> None:
        """Read again when a quarter is free: not at every message, or pausing would be all we do."""
        waiting = self.in_flight
        if not waiting:
            self._empty.set()
        settings = self._settings
        free = waiting <= settings.max_in_flight * 3 // 4
        if self._paused and free and self.in_flight_bytes <= settings.max_in_flight_bytes * 3 // 4:
            self._paused = False
            for intake in self._intakes:
                intake.source.resume()


def _with_catch_all(routes: Sequence[Route], topic: str | None) -> list[Route]:
    if topic is None or any(route.filter.mqtt == "#" for route in routes):
        return list(routes)
    catch_all = Route(name=UNROUTABLE, filter=TopicFilter.parse("#"), topic=Template.parse(topic))
    return [*routes, catch_all]
