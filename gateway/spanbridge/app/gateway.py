"""One gateway: built from a configuration, started, watched, and stopped in the order a message passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from spanbridge.admin import AdminServer
from spanbridge.app import changes, convert
from spanbridge.app.clock import SystemClock
from spanbridge.app.declare import declare
from spanbridge.app.events import GatewayStarted, GatewayStopped, GatewayStopping
from spanbridge.app.reload import Reload, Running
from spanbridge.app.services import ProbeService, RatesService, Services, SinkService, TelemetryService
from spanbridge.app.spool import SpoolView
from spanbridge.app.switch import SinkSwitch
from spanbridge.app.watch import Watch
from spanbridge.config import Config, Report, examine
from spanbridge.core.health import Thresholds
from spanbridge.mqtt import create_source
from spanbridge.ports import Service
from spanbridge.rocketmq import create_sink
from spanbridge.spool import SegmentSpool
from spanbridge.telemetry import Telemetry
from spanbridge.uplink import Uplink


class Gateway:
    """Everything that one configuration describes. Build it outside the loop: TLS files are read.

    With ``file`` the configuration can be read again from there, with the same ``environ``.
    """

    def __init__(
        self,
        config: Config,
        telemetry: Telemetry,
        *,
        file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Build the adapters; nothing connects yet.

        :raises SpanbridgeError: an option cannot work on this machine (a TLS file that does not parse, ...).
        """
        self._telemetry = telemetry
        self._reporter = telemetry.reporter
        clock, loaded = SystemClock(), changes.loaded(config)
        sink = SinkSwitch(create_sink(loaded.rocketmq, self._reporter))
        sources = [create_source(one, self._reporter) for one in loaded.mqtt.values()]
        spool_options = convert.spool_options(config)
        spool = None if spool_options is None else SegmentSpool(spool_options, self._reporter)
        self.uplink = Uplink(
            sink,
            tracer=telemetry.tracer,
            metrics=telemetry.metrics,
            reporter=self._reporter,
            clock=clock,
            settings=convert.uplink_settings(config),
            cluster=convert.peers(config)[1],
            spool=spool,
            boot_ns=clock.boot_ns,
        )
        routes = config.build_routes()
        for source in sources:
            peer = convert.mqtt_peer(loaded.mqtt[source.name])
            self.uplink.attach(source, routes, peer, several=len(sources) > 1)
        thresholds = Thresholds(config.admin.max_unacknowledged_age, config.admin.max_probe_age)
        self.watch = Watch(
            sources,
            sink,
            self.uplink,
            clock,
            thresholds=thresholds,
            name=config.name,
            recent=telemetry.reporter.recent,
        )
        probe = ProbeService(sink, self.watch, clock, config.admin.probe_interval)
        running = Running(
            sources=sources,
            sink=sink,
            uplink=self.uplink,
            watch=self.watch,
            probe=probe,
            telemetry=telemetry,
            clock=clock,
        )
        self.reload = Reload(running, loaded, _reader(file, environ or {}), file)
        found: list[Service] = [TelemetryService(telemetry, self.uplink, sources, sink)]
        found += self._spool(spool, clock) if spool is not None else []
        found += [self._admin(config)] if config.admin.enabled else []
        found += [SinkService(sink), probe, RatesService(self.watch.read_rates), self.reload]
        self._services = Services(found, self._reporter)
        self.watch.show("config", self.reload.show)
        self.watch.show("services", self._services.status)

    def _spool(self, spool: SegmentSpool, clock: SystemClock) -> list[Service]:
        """The spool, and what is shown of it."""
        assert self.uplink.spill is not None
        view = SpoolView(spool, self.uplink.spill, clock)
        view.register(self._telemetry)
        self.watch.show("spool", view.show)
        return [spool, view]

    def _admin(self, config: Config) -> AdminServer:
        return AdminServer(
            config.admin.host,
            config.admin.port,
            readiness=self.watch.readiness,
            status=self.watch.status,
            reporter=self._reporter,
            metrics=self._telemetry.prometheus if config.telemetry.prometheus else None,
            liveness=self.watch.liveness,
        )

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
            cluster, routes = config.rocketmq.endpoints, len(config.routes)
            self._reporter.report(GatewayStarted(gateway=config.name, brokers=brokers, cluster=cluster, routes=routes))
            await self._forward(stop, cause)
        finally:
            await self._services.stop()

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
            deadline = self.reload.config.uplink.drain_timeout
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


def _reader(file: Path | None, environ: Mapping[str, str]) -> Callable[[], Report] | None:
    return None if file is None else lambda: examine(file, environ)
