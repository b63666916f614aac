"""The uplink: sources on one side, the sink on the other, bounds between them, and an orderly stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Destination, Publish
from spanbridge.core.partition import BatchLimits
from spanbridge.core.routes import Route
from spanbridge.ports import Clock, Reporter, Sink, Source, Spool
from spanbridge.telemetry import MessageMetrics, Peer, Tracer
from spanbridge.uplink import events
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.recipe import UNROUTABLE, Ends, Partitions, Recipes, with_catch_all
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.replay import Replay, ReplayBounds
from spanbridge.uplink.sender import Sender
from spanbridge.uplink.spill import Spill, SpillSettings
from spanbridge.uplink.tally import Tallies, Tally

_STUCK_AFTER = 30.0
"""Seconds that a message may be in nobody's hands before that is taken for a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkSettings:
    """Bounds and extra destinations.

    ``gateway`` names this one in ``spanbridge.path``. ``max_in_flight`` (messages) and ``max_in_flight_bytes`` bound
    what was received and is not acknowledged: above, the sockets of sources that hold their share are not read.
    ``unroutable_topic`` takes what no route takes, ``rejected_topic`` whatever else can never be forwarded as it is.
    ``reject_after`` (seconds) is how long messages wait for a topic that a device named and that cannot be used.
    """

    gateway: str
    max_in_flight: int = 4096
    max_in_flight_bytes: int = 32 << 20
    limits: BatchLimits = field(default_factory=BatchLimits)
    unroutable_topic: str | None = None
    rejected_topic: str | None = None
    reject_after: float = 30.0
    spill: SpillSettings = field(default_factory=SpillSettings)


class Uplink:
    """MQTT to RocketMQ. ``cluster`` describes RocketMQ in spans.

    ``spool`` takes what RocketMQ does not take in time; it is started and stopped elsewhere. ``boot_ns`` is a clock
    that counts from the machine's start, in nanoseconds.
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
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopped = asyncio.Event()
        self._lost_ns: int | None = None
        self._group: asyncio.TaskGroup | None = None
        self._leaving: dict[Intake, asyncio.Event] = {}
        self._former: list[Tally] = []
        self._former_received = 0
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
            released=self._relieve,
            cluster=self._cluster,
            reject_after=settings.reject_after,
            **telling,  # type: ignore[arg-type]
        )

        self.spill: Spill | None = None
        if spool is not None:
            self.spill = self.sender.spill = self._make_spill(spool, boot_ns)

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
            bounds=_replay_bounds(self._settings),
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
        sent = self._leaving[intake] = asyncio.Event()
        await source.stop_intake()
        self._relieve()
        await sent.wait()
        await source.close()
        del self._leaving[intake], self._routes[intake]
        self._intakes.remove(intake)
        self._former += intake.tallies.all().values()
        self._former_received += intake.received
        self._relieve()

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
        for intake, mine, ends, recipes in planned:
            intake.use(ends, recipes)
            self._routes[intake] = mine
        self._settings, self._cluster = settings, cluster
        self._partitions.use(settings.limits)
        self._rejects.topic, self._rejects.cluster = settings.rejected_topic, cluster
        self.sender.reject_after = settings.reject_after
        self.sender.use(cluster)
        if self.spill is not None:
            self.spill.use(settings.spill, _replay_bounds(settings))
        self._relieve()

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
            for intake in self._intakes:
                self._start(group, intake)

    def _start(self, group: asyncio.TaskGroup, intake: Intake) -> None:
        group.create_task(self._run_source(intake), name=f"source {intake.source.name}")

    async def _run_source(self, intake: Intake) -> None:
        def deliver(deliveries: list[Delivery[Publish]]) -> None:
            intake.deliver(deliveries)
            self._hold(intake)

        await intake.source.run(deliver, self._relieve)

    async def drain(self, deadline: float) -> int:
        """Stop in the order a message passes: intake, batches, acknowledgements. ``deadline`` in seconds.

        Returns how many messages stay unsent with the MQTT broker.
        """
        self._stopped.set()
        sources = [intake.source for intake in self._intakes]
        await asyncio.gather(*(source.stop_intake() for source in sources))
        self._relieve()
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
        if self.spill is not None:
            await self.spill.stop()
        await self.sender.stop()
        for intake in self._intakes:
            gone = intake.source.unrepeatable()
            for delivery in gone:
                self._rejects.count_dropped(delivery.message, intake.tallies.get(UNROUTABLE), "stopping")
            if gone:
                cause = "the gateway stops, and the MQTT broker has no copy (QoS 0, or its session was lost)"
                self._reporter.report(events.MessagesDropped(reason="stopping", cause=cause, count=len(gone)))
                intake.source.ack(gone)

    @property
    def in_flight(self) -> int:
        """Messages received and neither acked nor nacked."""
        return sum(intake.source.unacked for intake in self._intakes)

    @property
    def held(self) -> int:
        """Messages in our hands: those in flight, and those whose acknowledgement waits for an earlier message."""
        return sum(intake.source.held for intake in self._intakes)

    @property
    def held_bytes(self) -> int:
        """Bytes that the messages in our hands take, as they came and in RocketMQ's form."""
        return sum(intake.source.held_bytes + intake.encoded_bytes for intake in self._intakes)

    @property
    def paused(self) -> bool:
        """Whether a socket is not read because as much is held as may be."""
        return any(intake.paused for intake in self._intakes)

    def oldest_age(self) -> float:
        """Seconds that the oldest message in flight has waited; 0 when none does."""
        oldest = [age for intake in self._intakes if (age := intake.source.oldest_ns()) is not None]
        return max(0.0, (self._clock.monotonic_ns() - min(oldest)) / 1e9) if oldest else 0.0

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
        working = [outgoing.delivery for outgoing in self.sender.sending()]
        if self.spill is not None:
            working += [outgoing.delivery for outgoing in self.spill.writing + self.spill.queue]
        working += [outgoing.delivery for partition in self._partitions.all() for outgoing in partition.pending]
        for intake in self._intakes:
            oldest = intake.source.oldest_ns()
            mine = [delivery.arrived_ns for delivery in working if delivery.source is intake.source]
            if oldest is not None and (not mine or oldest < min(mine)):
                return intake.source.name
        return None

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""
        tallies = [tally for intake in self._intakes for tally in intake.tallies.all().values()] + self._former
        sender = self.sender
        age = None if not sender.last_error_ns else round((self._clock.now_ns() - sender.last_error_ns) / 1e9, 1)
        return {
            "received": self._former_received + sum(intake.received for intake in self._intakes),
            "sent": sum(tally.sent for tally in tallies),
            "rejected": sum(tally.rejected.total() for tally in tallies),
            "dropped": sum(tally.dropped.total() for tally in tallies),
            "requests_in_flight": sender.requests,
            "in_flight": self.in_flight,
            "held": self.held,
            "held_bytes": self.held_bytes,
            "oldest_unacknowledged_s": round(self.oldest_age(), 3),
            "paused": self.paused,
            "last_error": sender.last_error,
            "last_error_age_s": age,
        }

    def routes(self) -> list[dict[str, Any]]:
        """For /status: each source's routes with what became of their messages, and what no route took."""
        return [row for intake, routes in self._routes.items() for row in self._route_rows(intake, routes)]

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
        tallies = intake.tallies.all()
        for filter_ in {UNROUTABLE, "#"} & tallies.keys():  # tallies of routes that were taken out are left out
            named.setdefault(filter_, (UNROUTABLE, self._settings.unroutable_topic))
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
                    "rejected_topic": self._settings.rejected_topic,
                    "last_s": round(max(0, now - tally.last_ns) / 1e9, 1) if tally.last_ns else None,
                }
            )
        return rows

    def _hold(self, intake: Intake) -> None:
        """Stop reading when enough is in flight: brokers overrun Receive Maximum, so the socket is the bound."""
        if intake.source.unacked:
            self._empty.clear()
        settings = self._settings
        if not intake.paused and self._over(intake, settings.max_in_flight, settings.max_in_flight_bytes):
            intake.paused = True
            intake.source.pause()
            if self.spill is not None:
                self.spill.pressed()

    def _relieve(self) -> None:
        """Read again when a quarter is free: not at every message, or pausing would be all we do."""
        if not self.in_flight:
            self._empty.set()
        for intake, sent in self._leaving.items():
            if not intake.source.unacked:
                sent.set()
        settings = self._settings
        messages, size = settings.max_in_flight * 3 // 4 + 1, settings.max_in_flight_bytes * 3 // 4 + 1
        for intake in self._intakes:
            if intake.paused and not self._over(intake, messages, size):
                intake.paused = False
                intake.source.resume()

    def _over(self, intake: Intake, messages: int, size: int) -> bool:
        """Whether all sources together hold so much, and this one its share: one that is stuck must not stop others."""
        source, shares = intake.source, len(self._intakes)
        if source.held * shares >= messages and self.held >= messages:
            return True
        return (source.held_bytes + intake.encoded_bytes) * shares >= size and self.held_bytes >= size


def _replay_bounds(settings: UplinkSettings) -> ReplayBounds:
    share = settings.spill.share
    messages, size = int(settings.max_in_flight * share), int(settings.max_in_flight_bytes * share)
    return ReplayBounds(max(1, messages), max(1, size), settings.spill.max_age)


def _routes_of(source: str, routes: Iterable[Route]) -> list[Route]:
    return [route for route in routes if route.source in (None, source)]
