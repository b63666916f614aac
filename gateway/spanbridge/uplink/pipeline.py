"""The uplink: sources on one side, the sink on the other, bounds between them, and an orderly stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Destination, Publish
from spanbridge.core.routes import Route
from spanbridge.ports import Clock, Reporter, Sink, Source, Spool
from spanbridge.telemetry import MessageMetrics, Peer, Tracer
from spanbridge.uplink import events
from spanbridge.uplink.backpressure import Backpressure
from spanbridge.uplink.dead_letters import DeadLetters
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.recipe import UNROUTABLE, Ends, Partitions, Recipes, with_catch_all
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.replay import Replay
from spanbridge.uplink.rows import UplinkRows
from spanbridge.uplink.sender import Sender
from spanbridge.uplink.settings import UplinkSettings
from spanbridge.uplink.spill import Spill
from spanbridge.uplink.tally import Tallies


class Uplink:
    """MQTT to RocketMQ. ``cluster`` describes RocketMQ in spans.

    ``spool`` takes what RocketMQ does not take in time, ``rejected`` dead letters; both are started and stopped
    elsewhere. ``boot_ns`` is a clock that counts from the machine's start, in nanoseconds.
    """

    def __init__(
        self,
        sink: Sink[Destination],
        *,
        tracer: Tracer,
        metrics: MessageMetrics,
        reporter: Reporter,
        clock: Clock,
        settings: UplinkSettings,
        cluster: Peer | None = None,
        spool: Spool | None = None,
        rejected: Spool | None = None,
        boot_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self._sink = sink
        self._tracer = tracer
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._settings = settings
        self._cluster = cluster or Peer()
        self._partitions = Partitions(settings.limits)
        self._intakes: list[Intake] = []
        self._routes: dict[Intake, list[Route]] = {}
        self._load = Backpressure(self._intakes, settings, clock)
        self._stopped = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        telling = {"tracer": tracer, "metrics": metrics, "reporter": reporter, "clock": clock}
        self._rejects = Rejects(
            settings.rejected_topic,
            sink,
            self._partitions,
            cluster=self._cluster,
            **telling,  # type: ignore[arg-type]
        )
        self.sender = Sender(
            sink,
            self._rejects,
            released=self._load.relieve,
            cluster=self._cluster,
            reject_after=settings.reject_after,
            **telling,  # type: ignore[arg-type]
        )

        self.spill: Spill | None = None
        if spool is not None:
            self.spill = self.sender.spill = self._make_spill(spool, boot_ns)
            self._load.pressed = self.spill.pressed
        self.dead_letters: DeadLetters | None = None
        if rejected is not None:
            self.dead_letters = self._rejects.here = self._make_dead_letters(rejected, boot_ns)
            self._rejects.keeps_here = settings.rejected_here
        self._rows = UplinkRows(
            self._routes,
            self.sender,
            self._partitions,
            self._load,
            clock,
            spill=self.spill,
            dead_letters=self.dead_letters,
        )

    def _make_spill(self, spool: Spool, boot_ns: Callable[[], int]) -> Spill:
        replay = Replay(
            spool,
            self.sender,
            self._intakes,
            rejects=self._rejects,
            reporter=self._reporter,
            clock=self._clock,
            boot_ns=boot_ns,
            link=lambda: self._sink.status.link,
            bounds=self._settings.replay_bounds(),
        )
        return Spill(
            spool,
            self.sender,
            self._partitions,
            replay,
            rejects=self._rejects,
            tracer=self._tracer,
            reporter=self._reporter,
            clock=self._clock,
            boot_ns=boot_ns,
            settings=self._settings.spill,
        )

    def _make_dead_letters(self, spool: Spool, boot_ns: Callable[[], int]) -> DeadLetters:
        return DeadLetters(
            spool,
            dropped=self._rejects.dropped,
            released=self._load.relieve,
            metrics=self._metrics,
            reporter=self._reporter,
            clock=self._clock,
            max_age=self._settings.spill.rejected_max_age,
            boot_ns=boot_ns,
        )

    def attach(self, source: Source[Publish], routes: Iterable[Route], broker: Peer, *, several: bool = False) -> None:
        """Add a source; it runs as long as the uplink does. ``broker`` describes its MQTT broker, and names us there.

        ``several`` says that there are more: then messages carry the source's name.

        :raises RouteError: two of the routes match the same topics.
        """
        ends = Ends(
            gateway=self._settings.gateway, source=source.name, broker=broker, cluster=self._cluster, told=several
        )
        intake = Intake(
            source,
            ends,
            rejects=self._rejects,
            metrics=self._metrics,
            reporter=self._reporter,
            clock=self._clock,
            submit=self.sender.enter,
        )
        mine = _routes_of(source.name, routes)
        intake.use(ends, self._recipes(mine, ends, intake.tallies))
        self._routes[intake] = mine
        self._intakes.append(intake)
        if self._group is not None:
            self._start(self._group, intake)

    async def detach(self, source: Source[Publish]) -> None:
        """Take nothing more from a source, send what it brought, however long that takes, then close and forget it."""
        intake = next(intake for intake in self._intakes if intake.source is source)
        sent = self._load.leaving[intake] = asyncio.Event()
        await source.stop_intake()
        self._load.relieve()
        await sent.wait()
        await source.close()
        del self._load.leaving[intake], self._routes[intake]
        self._intakes.remove(intake)
        self._rows.former += intake.tallies.all().values()
        self._rows.former_received += intake.received
        self._load.relieve()

    def reroute(
        self,
        routes: Iterable[Route],
        *,
        settings: UplinkSettings | None = None,
        cluster: Peer | None = None,
        brokers: Mapping[str, Peer] | None = None,
        several: bool | None = None,
    ) -> None:
        """Take messages by other routes from now on, and by other settings where these are given.

        What is under way goes where it was meant to go. Heads are made anew by the sink. ``brokers`` describes MQTT
        brokers by the names of their sources. The gateway's name stays.

        :raises RouteError: two of the routes match the same topics; then all stays as it was.
        """
        routes = list(routes)
        settings = settings or self._settings
        cluster = cluster or self._cluster
        planned = []
        for intake in self._intakes:
            mine = _routes_of(intake.source.name, routes)
            broker = (brokers or {}).get(intake.source.name, intake.ends.broker)
            told = intake.ends.told if several is None else several
            ends = replace(intake.ends, cluster=cluster, broker=broker, told=told)
            planned.append((intake, mine, ends, self._recipes(mine, ends, intake.tallies, settings)))
        before = self._out_of_spool()
        for intake, mine, ends, recipes in planned:
            intake.use(ends, recipes)
            self._routes[intake] = mine
        self._settings = self._load.settings = settings
        self._cluster = cluster
        self._partitions.use(settings.limits)
        self._rejects.topic, self._rejects.cluster = settings.rejected_topic, cluster
        self._rejects.keeps_here = settings.rejected_here
        if self.dead_letters is not None:
            self.dead_letters.max_age = settings.spill.rejected_max_age
        self.sender.failures.reject_after = settings.reject_after
        self.sender.accounts.use(cluster)
        if self.spill is not None:
            self.spill.use(settings.spill, settings.replay_bounds(), before, self._out_of_spool())
        self._load.relieve()

    def _out_of_spool(self) -> set[str]:
        return {route.filter.text for routes in self._routes.values() for route in routes if not route.spool}

    def _recipes(
        self, routes: Sequence[Route], ends: Ends, tallies: Tallies, settings: UplinkSettings | None = None
    ) -> Recipes:
        taken = with_catch_all(routes, (settings or self._settings).unroutable_topic)
        return Recipes(taken, self._sink, self._tracer, partitions=self._partitions, tallies=tallies, ends=ends)

    async def run(self) -> None:
        """Forward until :meth:`drain`; returns when every source has closed. Without sources it waits for some."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._stopped.wait(), name="uplink stop")
            if self.spill is not None:
                self.spill.start()
            if self.dead_letters is not None:
                self.dead_letters.start()
            for intake in self._intakes:
                self._start(group, intake)

    def _start(self, group: asyncio.TaskGroup, intake: Intake) -> None:
        group.create_task(self._run_source(intake), name=f"source {intake.source.name}")

    async def _run_source(self, intake: Intake) -> None:
        def deliver(deliveries: list[Delivery[Publish]]) -> None:
            intake.deliver(deliveries)
            self._load.hold(intake)

        await intake.source.run(deliver, self._load.relieve)

    async def drain(self, deadline: float) -> int:
        """Stop in the order a message passes: intake, batches, acknowledgements. ``deadline`` in seconds.

        Returns how many messages stay unsent with the MQTT broker.
        """
        self._stopped.set()
        sources = [intake.source for intake in self._intakes]
        await asyncio.gather(*(source.stop_intake() for source in sources))
        self._load.relieve()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._load.empty.wait()
        await self.abandon()
        if self.in_flight:
            self._reporter.report(events.DrainIncomplete(count=self.in_flight))
        await asyncio.gather(*(source.close() for source in sources))
        return self.in_flight

    async def abandon(self) -> None:
        """Stop sending, whatever is unsent: most stays with the MQTT brokers, the rest is counted. Idempotent."""
        if self.spill is not None:
            await self.spill.stop()
        await self.sender.stop()
        if self.dead_letters is not None:
            await self.dead_letters.stop()
        for intake in self._intakes:
            gone = intake.source.unrepeatable()
            for delivery in gone:
                self._rejects.count_dropped(delivery.message, intake.tallies.get(UNROUTABLE), "stopping")
            if gone:
                cause = "the gateway stops, and the MQTT broker has no copy (QoS 0, or its session was lost)"
                self._reporter.report(events.MessagesDropped(reason="stopping", cause=cause, count=len(gone)))
                intake.source.ack(gone)

    # What is shown

    @property
    def in_flight(self) -> int:
        """Messages received and neither acked nor nacked."""
        return self._load.in_flight

    @property
    def held(self) -> int:
        """Messages in our hands."""
        return self._load.held

    @property
    def held_bytes(self) -> int:
        """Bytes that those take."""
        return self._load.held_bytes

    @property
    def paused(self) -> bool:
        """Whether a socket is not read because as much is held as may be."""
        return self._load.paused

    def oldest_age(self) -> float:
        """Seconds that the oldest message in flight has waited; 0 when none does."""
        return self._load.oldest_age()

    def stuck(self) -> str | None:
        """Why messages wait that nobody works on; None while all is well."""
        return self._rows.stuck()

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""
        return self._rows.status()

    def routes(self) -> list[dict[str, Any]]:
        """For /status: each source's routes with what became of their messages, and what no route took."""
        return self._rows.routes()

    def batches(self) -> dict[str, Any]:
        """For /status: requests to RocketMQ since the start."""
        return self._rows.batches()


def _routes_of(source: str, routes: Iterable[Route]) -> list[Route]:
    return [route for route in routes if route.source in (None, source)]
