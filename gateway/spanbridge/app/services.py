"""What runs in the background, each a :class:`spanbridge.ports.Service`, and the list of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from spanbridge.app.events import ServiceStopFailed
from spanbridge.core.errors import SinkError
from spanbridge.ports import Clock, Reporter, Service, Sink, Source
from spanbridge.telemetry import Telemetry

if TYPE_CHECKING:  # a supervisor has services too, and forwards nothing
    from spanbridge.app.watch import Watch
    from spanbridge.downlink import Downlinks
    from spanbridge.uplink import Uplink

RATE_PERIOD = 5.0
"""Seconds between the readings that rates are worked out from."""
_FLUSH_TIMEOUT = 5.0
"""Seconds for the last spans and metrics; a collector that is away must not hold up a restart."""


class Services:
    """Services in the order in which they start. They stop in reverse."""

    def __init__(self, services: Sequence[Service], reporter: Reporter) -> None:
        self._services = list(services)
        self._reporter = reporter

    async def start(self) -> None:
        """Start all.

        :raises SpanbridgeError: one of them cannot start; :meth:`stop` is still to be called.
        """
        for service in self._services:
            await service.start()

    async def stop(self) -> None:
        """Stop all, whatever happens to one of them. Idempotent."""
        for service in reversed(self._services):
            try:
                await service.stop()
            except Exception as fault:  # noqa: BLE001 - the others are to be stopped all the same
                cause = f"{type(fault).__name__}: {fault}"
                self._reporter.report(ServiceStopFailed(service=service.name, cause=cause))

    def status(self) -> dict[str, Any]:
        """Each service's status by its name, in the order of the list."""
        return {service.name: service.status() for service in self._services}


class Periodic:
    """A service that is one task."""

    name: str

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self.run(), name=self.name)

    async def stop(self) -> None:
        """End the task, and wait until that is done. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run(self) -> None:
        """Work until cancelled."""
        raise NotImplementedError


class TelemetryService:
    """Exports spans and metrics, and flushes the log."""

    name = "telemetry"

    def __init__(
        self,
        telemetry: Telemetry,
        uplink: Uplink | None = None,
        sources: Sequence[Source[Any]] = (),
        sink: Sink[Any] | None = None,
        downlinks: Downlinks | None = None,
    ) -> None:
        """Show those in gauges. ``sources`` is a live view."""
        self._telemetry = telemetry
        self._shown = (uplink, sources, sink, downlinks)

    async def start(self) -> None:
        """Start exporting."""
        await self._telemetry.start(*self._shown)

    async def stop(self) -> None:
        """Send and log what is left."""
        await self._telemetry.shutdown(_FLUSH_TIMEOUT)

    def status(self) -> dict[str, Any]:
        """Nothing: the metrics tell."""
        return {}


class SinkService:
    """The connection to RocketMQ: routes, heartbeats, streams."""

    name = "rocketmq"

    def __init__(self, sink: Sink[Any]) -> None:
        self._sink = sink

    async def start(self) -> None:
        """Begin to connect."""
        await self._sink.start()

    async def stop(self) -> None:
        """Finish what is in flight and close."""
        await self._sink.close()

    def status(self) -> dict[str, Any]:
        """The state of the connection; the rest is under ``rocketmq`` on /status."""
        return {"link": str(self._sink.status.link)}


class ProbeService(Periodic):
    """Probes RocketMQ every ``interval`` seconds, and at once, so that an idle gateway knows as well."""

    name = "probe"

    def __init__(self, sink: Sink[Any], watch: Watch, clock: Clock, interval: float) -> None:
        super().__init__()
        self.interval = interval
        self._sink = sink
        self._watch = watch
        self._clock = clock
        self._probes = 0

    async def run(self) -> None:
        """Probe for ever. An adapter bounds a probe's time itself."""
        while True:
            error = await self._probe()
            self._probes += 1
            self._watch.probed(error)
            await self._clock.sleep(self.interval if error is None else min(self.interval, 1.0))

    async def _probe(self) -> str | None:
        try:
            await self._sink.probe()
        except SinkError as error:
            return str(error)
        except Exception as fault:  # noqa: BLE001 - a probe that ends for good would leave health in the dark
            return f"{type(fault).__name__}: {fault}"
        return None

    def status(self) -> dict[str, Any]:
        """How often it has probed, and what the last probe said."""
        return {"probes": self._probes, "interval_s": self.interval, "last_error": self._watch.probe_error}


class RatesService(Periodic):
    """Reads the counters that rates are worked out from."""

    name = "rates"

    def __init__(self, read: Callable[[], None]) -> None:
        super().__init__()
        self._read = read

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await asyncio.sleep(RATE_PERIOD)
            self._read()

    def status(self) -> dict[str, Any]:
        """How often it reads."""
        return {"interval_s": RATE_PERIOD}
