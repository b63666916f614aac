"""One gateway: built from a configuration, started, watched, and stopped in the order a message passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from spanbridge import __version__
from spanbridge.admin import AdminServer
from spanbridge.app import convert
from spanbridge.app.watch import Watch
from spanbridge.config import Config
from spanbridge.core.events import Event
from spanbridge.core.health import Thresholds
from spanbridge.core.message import Publish
from spanbridge.mqtt import create_source
from spanbridge.ports import Source
from spanbridge.rocketmq import create_sink
from spanbridge.telemetry import Telemetry
from spanbridge.uplink import Uplink

_FLUSH_TIMEOUT = 5.0
"""Seconds for the last spans and metrics; a collector that is away must not hold up a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStarted(Event):
    """The gateway runs."""

    name: ClassVar[str] = "gateway.starts"

    gateway: str
    brokers: str
    cluster: str
    routes: int

    def text(self) -> str:
        """What it connects."""
        what = f"{self.brokers} -> {self.cluster}, {self.routes} route(s)"
        return f"spanbridge {__version__} {self.gateway!r} started: {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStopping(Event):
    """The gateway was asked to stop."""

    name: ClassVar[str] = "gateway.stops"

    cause: str
    in_flight: int
    deadline: float

    def text(self) -> str:
        """How long that may take."""
        return f"stopping ({self.cause}): sending {self.in_flight} message(s) in flight, for up to {self.deadline:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStopped(Event):
    """The gateway has stopped."""

    name: ClassVar[str] = "gateway.stopped"
    counted: ClassVar[bool] = False

    sent: int
    left: int

    def text(self) -> str:
        """The tally."""
        return f"stopped: {self.sent} message(s) sent, {self.left} left with the MQTT broker"


class SystemClock:
    """The machine's time."""

    # The functions themselves: the hot path asks for the time several times a batch.
    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    async def sleep(self, seconds: float) -> None:
        """Pause the calling task."""
        await asyncio.sleep(seconds)


class Gateway:
    """Everything that one configuration describes. Build it outside the loop: TLS files are read."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        """Build the adapters; nothing connects yet.

        :raises SpanbridgeError: an option cannot work on this machine (a TLS file that does not parse, ...).
        """
        self._config = config
        self._telemetry = telemetry
        self._reporter = telemetry.reporter
        clock = SystemClock()
        self._sink = create_sink(convert.rocketmq_options(config), self._reporter)
        options = [convert.mqtt_options(config, broker) for broker in config.mqtt]
        self._sources: list[Source[Publish]] = [create_source(one, self._reporter) for one in options]
        self.uplink = Uplink(
            self._sink,
            tracer=telemetry.tracer,
            metrics=telemetry.metrics,
            reporter=self._reporter,
            clock=clock,
            settings=convert.uplink_settings(config),
            cluster=convert.peers(config)[1],
        )
        routes = config.build_routes()
        for source, one in zip(self._sources, options, strict=True):
            self.uplink.attach(source, routes, convert.mqtt_peer(one), several=len(options) > 1)
        admin = config.admin
        thresholds = Thresholds(admin.max_unacknowledged_age, admin.max_probe_age)
        recent = telemetry.reporter.recent
        self.watch = Watch(
            self._sources,
            self._sink,
            self.uplink,
            clock,
            thresholds=thresholds,
            name=config.name,
            recent=recent,
        )
        self._admin = self._make_admin() if admin.enabled else None
        self._brokers = ", ".join(f"{one.host}:{one.port}" for one in options)

    def _make_admin(self) -> AdminServer:
        config = self._config
        metrics = self._telemetry.prometheus if config.telemetry.prometheus else None
        return AdminServer(
            config.admin.host,
            config.admin.port,
            readiness=self.watch.readiness,
            status=self.watch.status,
            reporter=self._reporter,
            metrics=metrics,
            liveness=self.watch.liveness,
        )

    async def run(self, stop: asyncio.Event, cause: Callable[[], str]) -> None:
        """Run until ``stop`` is set, then drain. ``cause`` tells who asked.

        :raises SpanbridgeError: something that no retry can mend.
        """
        config = self._config
        background: list[asyncio.Task[None]] = []
        try:
            if self._admin is not None:
                await self._admin.start()
            await self._telemetry.start(self.uplink, self._sources, self._sink)
            self._reporter.waiting("rocketmq", self._waiting)
            await self._sink.start()
            background = [
                asyncio.create_task(self.watch.probe_forever(config.admin.probe_interval), name="probe"),
                asyncio.create_task(self.watch.read_rates_forever(), name="rates"),
            ]
            cluster, routes = config.rocketmq.endpoints, len(config.routes)
            self._reporter.report(
                GatewayStarted(gateway=config.name, brokers=self._brokers, cluster=cluster, routes=routes)
            )
            await self._forward(stop, cause)
        finally:
            await self._close(background)

    def _waiting(self) -> str:
        """What an outage of RocketMQ's keeps waiting, for the log."""
        count = self.uplink.in_flight
        return f"{count} message(s) wait, the oldest for {self.uplink.oldest_age():.0f} s" if count else ""

    async def _forward(self, stop: asyncio.Event, cause: Callable[[], str]) -> None:
        forwarding = asyncio.create_task(self.uplink.run(), name="uplink")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({forwarding, stopping}, return_when=asyncio.FIRST_COMPLETED)
            self.watch.draining = True
            deadline = self._config.uplink.drain_timeout
            self._telemetry.flush_log()
            if stop.is_set():
                self._reporter.report(
                    GatewayStopping(cause=cause(), in_flight=self.uplink.in_flight, deadline=deadline)
                )
            left = await self.uplink.drain(deadline)
            self._telemetry.flush_log()
            self._reporter.report(GatewayStopped(sent=self.uplink.sender.sent, left=left))
            await forwarding
        finally:
            stopping.cancel()
            forwarding.cancel()
            await self.uplink.abandon()  # after a second signal, requests must not hold up the end
            await asyncio.gather(forwarding, stopping, return_exceptions=True)

    async def _close(self, background: list[asyncio.Task[None]]) -> None:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._sink.close()
        if self._admin is not None:
            await self._admin.stop()
        await self._telemetry.shutdown(_FLUSH_TIMEOUT)
