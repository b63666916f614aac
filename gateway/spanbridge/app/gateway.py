"""One gateway: built from a configuration, started, watched, and stopped in the order a message passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spanbridge.admin import AdminServer, Profiles
from spanbridge.app import changes, convert
from spanbridge.app.clock import SystemClock
from spanbridge.app.declare import declare
from spanbridge.app.downlinks import DownlinkPeers
from spanbridge.app.events import GatewayStarted
from spanbridge.app.forwarding import Deadlines, Forwarding
from spanbridge.app.inbox import InboxService
from spanbridge.app.reload import Reload, Running
from spanbridge.app.services import ProbeService, RatesService, Services, SinkService, TelemetryService
from spanbridge.app.spool import SpoolView
from spanbridge.app.switch import SinkSwitch
from spanbridge.app.watch import Watch
from spanbridge.config import Config, Report, examine
from spanbridge.core.health import Thresholds
from spanbridge.downlink import Downlinks
from spanbridge.mqtt import create_source
from spanbridge.ports import Service
from spanbridge.rocketmq import ClusterProtocol, create_sink
from spanbridge.spool.inbox import SpoolInbox
from spanbridge.spool.segments import SegmentSpool
from spanbridge.telemetry import Telemetry
from spanbridge.uplink import Uplink

if TYPE_CHECKING:
    from spanbridge.app.worker import Worker
    from spanbridge.lag import LagService
    from spanbridge.profiling import ProfilerService
    from spanbridge.telemetry.metrics.points import Metric


class Gateway:
    """Everything that one configuration describes. Build it outside the loop: TLS files are read.

    With ``file`` the configuration can be read again from there, with the same ``environ``. ``worker`` is who of
    several processes this is; the configuration is that worker's, and read by somebody else.
    """

    def __init__(
        self,
        config: Config,
        telemetry: Telemetry,
        *,
        file: Path | None = None,
        environ: Mapping[str, str] | None = None,
        worker: Worker | None = None,
    ) -> None:
        """Build the adapters; nothing connects yet.

        :raises SpanbridgeError: an option cannot work on this machine (a TLS file that does not parse, ...).
        """
        self._telemetry = telemetry
        self._reporter = telemetry.reporter
        clock, loaded = SystemClock(), changes.loaded(config, worker)
        protocol = ClusterProtocol()
        sink = SinkSwitch(create_sink(loaded.rocketmq, self._reporter, protocol))
        sources = self.sources = [create_source(one, self._reporter) for one in loaded.mqtt.values()]
        spool_options = convert.spool_options(config)
        spool = None if spool_options is None else SegmentSpool(spool_options, self._reporter)
        letters = convert.dead_letter_options(config)
        rejected = None if letters is None else SegmentSpool(letters, self._reporter)
        self.uplink = Uplink(
            sink,
            tracer=telemetry.tracer,
            metrics=telemetry.metrics,
            reporter=self._reporter,
            clock=clock,
            settings=convert.uplink_settings(config),
            cluster=convert.peers(config)[1],
            spool=spool,
            rejected=rejected,
            boot_ns=clock.boot_ns,
        )
        routes = config.build_routes()
        for source in sources:
            peer = convert.mqtt_peer(loaded.mqtt[source.name])
            self.uplink.attach(source, routes, peer, several=len(sources) > 1)
        self.downlinks = Downlinks(
            tracer=telemetry.tracer,
            metrics=telemetry.downlink_metrics,
            reporter=self._reporter,
            clock=clock,
            settings=convert.downlink_settings(config),
        )
        peers = DownlinkPeers(self.downlinks, telemetry, protocol)
        peers.attach(loaded.downlinks, peers.make(loaded))
        thresholds = Thresholds(config.admin.max_unacknowledged_age, config.admin.max_probe_age)
        self.watch = Watch(
            sources,
            sink,
            self.uplink,
            clock,
            thresholds=thresholds,
            name=config.name,
            recent=telemetry.reporter.recent,
            downlinks=self.downlinks,
            publishers=peers.publishers,
            consumers=peers.consumers,
        )
        probe = ProbeService(sink, self.watch, clock, config.admin.probe_interval)
        running = Running(
            sources=sources,
            sink=sink,
            protocol=protocol,
            uplink=self.uplink,
            downlinks=peers,
            watch=self.watch,
            probe=probe,
            telemetry=telemetry,
            clock=clock,
        )
        self.profiler = _profiler(config, telemetry, environ or {})
        self.reload = Reload(running, loaded, _reader(file, environ or {}), file, worker)
        found: list[Service] = [TelemetryService(telemetry, self.uplink, sources, sink, self.downlinks)]
        found += [self.profiler] if self.profiler is not None else []
        found += self._spool(spool, rejected, clock) if spool and rejected else []
        found += [self._admin(config)] if config.admin.enabled else []
        found += [SinkService(sink), probe, RatesService(self.watch.read_rates)]
        if (lag := _lag(config, telemetry, clock)) is not None:
            found.append(lag)
            self.watch.show("lag", lag.show)
        found.append(self.reload)
        self._services = Services(found, self._reporter)
        peers.show()
        self.watch.show("config", self.reload.show)
        self.watch.show("services", self._services.status)

    def _spool(self, spool: SegmentSpool, rejected: SegmentSpool, clock: SystemClock) -> list[Service]:
        """The spool and its dead letters, what is shown of them, and what commands ask of them."""
        spill, letters = self.uplink.spill, self.uplink.dead_letters
        assert spill is not None
        assert letters is not None
        view = SpoolView(spool, spill, rejected, letters, clock)
        view.register(self._telemetry)
        self.watch.show("spool", view.show)
        return [spool, rejected, view, InboxService(SpoolInbox(spool.path), spill, letters, self._reporter, clock)]

    def _admin(self, config: Config) -> AdminServer:
        return AdminServer(
            config.admin.host,
            config.admin.port,
            readiness=self.watch.readiness,
            status=self.watch.status,
            reporter=self._reporter,
            metrics=self._telemetry.prometheus if config.telemetry.prometheus else None,
            liveness=self.watch.liveness,
            profile=self._profiles(config),
            token=convert.plain(config.admin.token),
        )

    def _profiles(self, config: Config) -> Profiles | None:
        """The page of profiles, where it is asked for."""
        if self.profiler is None or not config.profiling.enabled:
            return None
        return Profiles(self.profiler.profile)

    async def run(self, stop: asyncio.Event, cause: Callable[[], str]) -> None:
        """Run until ``stop`` is set, then drain. ``cause`` tells who asked.

        :raises SpanbridgeError: something that no retry can mend.
        """
        config = self.reload.config
        self._reporter.waiting("rocketmq", self._waiting)
        declare(config, self._telemetry)
        try:
            await self._services.start()
            brokers = ", ".join(f"{broker.host}:{broker.port}" for broker in config.mqtt)
            started = GatewayStarted(
                gateway=config.name,
                brokers=brokers,
                cluster=config.rocketmq.endpoints,
                routes=len(config.routes),
                downlinks=len(config.downlinks),
            )
            self._reporter.report(started)
            await self._forward(stop, cause)
        finally:
            await self._services.stop()

    def metrics(self) -> list[Metric]:
        """All metrics now."""
        return self._telemetry.read()

    def release(self) -> None:
        """Give up the subscriptions that another worker takes: it has them."""
        for source in self.sources:
            source.release()

    def _waiting(self) -> str:
        """What an outage of RocketMQ's keeps waiting, for the log."""
        count = self.uplink.in_flight
        return f"{count} message(s) wait, the oldest for {self.uplink.oldest_age():.0f} s" if count else ""

    async def _forward(self, stop: asyncio.Event, cause: Callable[[], str]) -> None:
        def deadlines() -> Deadlines:
            config = self.reload.config
            return Deadlines(config.uplink.drain_timeout, config.downlink.drain_timeout)

        forwarding = Forwarding(self.uplink, self.downlinks, self.watch, self._telemetry)
        await forwarding.run(stop, cause, deadlines)


def _reader(file: Path | None, environ: Mapping[str, str]) -> Callable[[], Report] | None:
    return None if file is None else lambda: examine(file, environ)


# What few gateways have is loaded where it is configured: the others start sooner, and stay smaller.


def _profiler(config: Config, telemetry: Telemetry, environ: Mapping[str, str]) -> ProfilerService | None:
    if not config.profiling.enabled and config.profiling.push == "none":
        return None
    from spanbridge.app import profiler  # noqa: PLC0415

    return profiler.build(config, telemetry, environ)


def _lag(config: Config, telemetry: Telemetry, clock: SystemClock) -> LagService | None:
    if config.lag is None:
        return None
    from spanbridge.app.lag import lag_service  # noqa: PLC0415

    return lag_service(config, telemetry, clock)
