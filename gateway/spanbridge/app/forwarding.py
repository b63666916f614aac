"""Both directions at work, until somebody asks to stop; then drained in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from spanbridge.app.events import GatewayStopped, GatewayStopping
from spanbridge.app.watch import Watch
from spanbridge.downlink import Downlinks
from spanbridge.telemetry import Telemetry
from spanbridge.uplink import Uplink


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a drain may take, by direction."""

    uplink: float
    downlink: float


class Forwarding:
    """Runs uplink and downlinks side by side.

    The way down stops first: a device's answer to a command still goes up, and nothing new is asked of devices.
    """

    def __init__(self, uplink: Uplink, downlinks: Downlinks, watch: Watch, telemetry: Telemetry) -> None:
        self._uplink = uplink
        self._downlinks = downlinks
        self._watch = watch
        self._telemetry = telemetry

    async def run(self, stop: asyncio.Event, cause: Callable[[], str], deadlines: Callable[[], Deadlines]) -> None:
        """Forward until ``stop`` is set, then drain. ``cause`` tells who asked.

        :raises SpanbridgeError: something that no retry can mend.
        """
        upward = asyncio.create_task(self._uplink.run(), name="uplink")
        downward = asyncio.create_task(self._downlinks.run(), name="downlink")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        tasks = (upward, downward, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._drain(deadlines(), cause() if stop.is_set() else None)
            await asyncio.gather(upward, downward)
        finally:
            for task in tasks:
                task.cancel()
            await self._uplink.abandon()  # after a second signal, requests must not hold up the end
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, deadlines: Deadlines, cause: str | None) -> None:
        uplink, downlinks, report = self._uplink, self._downlinks, self._telemetry.reporter.report
        self._watch.draining = True
        self._telemetry.flush_log()
        if cause is not None:
            downward = downlinks.in_flight
            deadline = deadlines.uplink + (deadlines.downlink if downward else 0)
            report(GatewayStopping(cause=cause, in_flight=uplink.in_flight, deadline=deadline, downward=downward))
        given_back = await downlinks.drain(deadlines.downlink)
        left = await uplink.drain(deadlines.uplink)
        self._telemetry.flush_log()
        published = downlinks.status()["published"]
        report(GatewayStopped(sent=uplink.sender.sent, left=left, published=published, given_back=given_back))
