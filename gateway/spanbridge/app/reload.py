"""The configuration read again while the gateway runs (SIGHUP): taken over when it is valid, else told and left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanbridge.app import changes, convert
from spanbridge.app.declare import declare
from spanbridge.app.downlinks import DownlinkAdapters, DownlinkPeers
from spanbridge.app.events import (
    ConfigNeedsRestart,
    ConfigProblem,
    ConfigRefused,
    ConfigReloaded,
    ConnectionRemoved,
)
from spanbridge.app.services import Periodic, ProbeService
from spanbridge.app.switch import SinkSwitch
from spanbridge.app.watch import Watch
from spanbridge.config import Config, Problem, Report
from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.health import Thresholds
from spanbridge.mqtt import MqttSubscriber, check_options, create_source
from spanbridge.ports import Clock
from spanbridge.rocketmq import ClusterProtocol, create_sink
from spanbridge.telemetry import Telemetry
from spanbridge.telemetry.quiet import report_fault
from spanbridge.uplink import Uplink

if TYPE_CHECKING:
    from spanbridge.app.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The parts of a running gateway that a configuration decides. ``sources`` is shared with those who look at it."""

    sources: list[MqttSubscriber]
    sink: SinkSwitch
    protocol: ClusterProtocol
    uplink: Uplink
    downlinks: DownlinkPeers
    watch: Watch
    probe: ProbeService
    telemetry: Telemetry
    clock: Clock


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that can be taken over, and the adapters that are new by it. Nothing has changed yet."""

    after: changes.Loaded
    found: changes.Changes
    needed: tuple[str, ...]
    added: list[MqttSubscriber]
    made: DownlinkAdapters


class Reload(Periodic):
    """Reads the configuration again when it is asked to. One at a time; ``config`` is the one in force.

    ``read`` reads it again, and may block. Without it, somebody else asks to :meth:`prepare` and :meth:`take_over`.
    """

    name = "reload"

    def __init__(
        self,
        running: Running,
        config: changes.Loaded,
        read: Callable[[], Report] | None,
        file: Path | None,
        worker: Worker | None = None,
    ) -> None:
        super().__init__()
        self._running = running
        self._loaded = config
        self._read = read
        self._file = file
        self._worker = worker
        self._asked = asyncio.Event()
        self._loaded_ns = running.clock.now_ns()
        self._reloads = 0
        self._refusals = 0
        self._last_error: str | None = None
        self._last_error_ns = 0
        self._needs_restart: tuple[str, ...] = ()
        self._leaving: dict[asyncio.Task[None], MqttSubscriber] = {}

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._loaded.config

    def ask(self) -> None:
        """Read the configuration again soon. Synchronous."""
        self._asked.set()

    async def run(self) -> None:
        """Wait to be asked, again and again."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.reload()

    async def stop(self) -> None:
        """End. What removed connections still hold stays with their MQTT brokers."""
        await super().stop()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def reload(self) -> None:
        """Read the configuration once, and take it over when it is valid. Never raises."""
        if self._read is None or self._running.watch.draining:
            return
        try:
            report = await asyncio.to_thread(self._read)
            if report.config is None:
                self._refuse(report.errors)
                return
            prepared = await self.prepare(report.config)
            if await self.take_over(prepared):
                self._tell(prepared, len(report.warnings))
        except SpanbridgeError as error:
            self._refuse([Problem(path="", message=str(error))])
        except Exception as fault:  # noqa: BLE001 - whatever a file brings up, what runs goes on
            self._refuse([Problem(path="", message=f"internal error: {type(fault).__name__}: {fault}")])

    async def prepare(self, read: Config) -> Prepared:
        """Do all that can fail.

        :raises SpanbridgeError: an option cannot work on this machine.
        """
        held, needed = changes.hold(self.config, read, [source.options for source in self._leaving.values()])
        after = await asyncio.to_thread(changes.loaded, held, self._worker)
        found = changes.compare(self._loaded, after)
        added, made = await asyncio.to_thread(self._prepare, after, found)
        return Prepared(after, found, needed, added, made)

    async def take_over(self, prepared: Prepared) -> bool:
        """Change over in one step; False when the gateway drains, and nothing has changed.

        :raises RouteError: two routes match the same topics; nothing was changed.
        """
        running, after, found = self._running, prepared.after, prepared.found
        producer = None
        if found.cluster:
            producer = create_sink(after.rocketmq, running.telemetry.reporter, running.protocol)
        if producer is not None:
            await producer.start()
        try:
            if running.watch.draining:
                return False
            self._reroute(after)
            if producer is not None:
                running.sink.use(producer)
                producer = None
        finally:
            if producer is not None:
                await producer.close()
        self._change_connections(after, found, prepared.added)
        await self._change_downlinks(after, found, prepared.made)
        await self._finish(after, found)
        self._reloads += 1
        self._last_error = None
        self._needs_restart = prepared.needed
        return True

    def _prepare(self, after: changes.Loaded, found: changes.Changes) -> tuple[list[MqttSubscriber], DownlinkAdapters]:
        """See that other options can work, and make the adapters that are new. Blocking.

        :raises SpanbridgeError: they cannot.
        """
        for name in (*found.renewed, *found.subscribed):
            check_options(after.mqtt[name])
        down = found.downlinks
        made = self._running.downlinks.make(after, down.publishers, (*down.added, *down.renewed))
        return [create_source(after.mqtt[name], self._running.telemetry.reporter) for name in found.added], made

    def _reroute(self, after: changes.Loaded) -> None:
        """Routes and settings first: what new subscriptions bring finds its route.

        :raises RouteError: two routes match the same topics; nothing was changed.
        """
        self._running.uplink.reroute(
            after.config.build_routes(),
            settings=convert.uplink_settings(after.config),
            cluster=convert.peers(after.config)[1],
            brokers={name: convert.mqtt_peer(options) for name, options in after.mqtt.items()},
            several=len(after.mqtt) > 1,
        )

    def _change_connections(
        self, after: changes.Loaded, found: changes.Changes, added: Sequence[MqttSubscriber]
    ) -> None:
        running = self._running
        running.sink.expect(after.rocketmq.topics, after.rocketmq.kinds)
        for source in running.sources:
            if source.name in found.renewed or source.name in found.subscribed:
                source.reconfigure(after.mqtt[source.name], renew=source.name in found.renewed)
        routes = after.config.build_routes()
        for source in added:
            peer = convert.mqtt_peer(after.mqtt[source.name])
            running.uplink.attach(source, routes, peer, several=len(after.mqtt) > 1)
            running.sources.append(source)
        for source in [source for source in running.sources if source.name in found.removed]:
            self._leave(source)

    async def _change_downlinks(self, after: changes.Loaded, found: changes.Changes, made: DownlinkAdapters) -> None:
        if found.bounds or found.downlinks != changes.DownlinkChanges():
            settings = convert.downlink_settings(after.config)
            await self._running.downlinks.change(after, found.downlinks, made, settings)

    def _leave(self, source: MqttSubscriber) -> None:
        task = asyncio.create_task(self._drained(source), name=f"leave {source.name}")
        self._leaving[task] = source
        task.add_done_callback(self._leaving.pop)

    async def _drained(self, source: MqttSubscriber) -> None:
        try:
            await self._running.uplink.detach(source)
            self._running.sources.remove(source)
            removed = ConnectionRemoved(source=source.name, broker=source.options.broker)
            self._running.telemetry.reporter.report(removed)
        except Exception as fault:  # noqa: BLE001 - it stays in the list, closed or not, for all to see
            report_fault(self._running.telemetry.reporter, fault, "reload")

    async def _finish(self, after: changes.Loaded, found: changes.Changes) -> None:
        running, admin = self._running, after.config.admin
        self._loaded = after
        self._loaded_ns = running.clock.now_ns()
        running.telemetry.metrics.use(*convert.peers(after.config))
        declare(after.config, running.telemetry)
        running.watch.thresholds = Thresholds(admin.max_unacknowledged_age, admin.max_probe_age)
        running.probe.interval = admin.probe_interval
        if found.cluster or found.routes or found.health:  # what the last probe said is of something else
            await running.probe.stop()
            await running.probe.start()

    def _tell(self, prepared: Prepared, warnings: int) -> None:
        report, file, needed = self._running.telemetry.reporter.report, str(self._file), prepared.needed
        report(ConfigReloaded(file=file, changes=prepared.found.words(), warnings=warnings))
        if needed:
            report(ConfigNeedsRestart(file=file, settings=", ".join(needed)))

    def _refuse(self, errors: Sequence[Problem]) -> None:
        running = self._running
        self._refusals += 1
        texts = [problem.located(str(self._file)) for problem in errors]
        self._last_error, self._last_error_ns = "; ".join(texts), running.clock.now_ns()
        for text in texts:
            running.telemetry.reporter.report(ConfigProblem(problem=text))
        running.telemetry.reporter.report(ConfigRefused(file=str(self._file), errors=len(texts)))

    def status(self) -> dict[str, Any]:
        """How often it was asked, and with what result."""
        return {"reloads": self._reloads, "refusals": self._refusals}

    def show(self) -> dict[str, Any]:
        """For /status: which configuration is in force."""
        age = (self._running.clock.now_ns() - self._last_error_ns) / 1e9
        return {
            "file": None if self._file is None else str(self._file),
            "loaded_at": datetime.fromtimestamp(self._loaded_ns / 1e9, UTC).isoformat(timespec="seconds"),
            "reloads": self._reloads,
            "last_error": self._last_error,
            "last_error_age_s": None if self._last_error is None else round(max(0.0, age), 1),
            "needs_restart": list(self._needs_restart),
        }
