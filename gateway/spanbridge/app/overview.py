"""What the admin server shows of several workers: asked for with each request, added up."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs

from spanbridge import __version__
from spanbridge.admin import Profiles
from spanbridge.admin.pages import Answer, LaterAnswer, error
from spanbridge.app.services import RATE_PERIOD, Periodic
from spanbridge.core.health import Readiness, Reason
from spanbridge.ports import Clock
from spanbridge.supervisor.channel import ChannelError, Message
from spanbridge.supervisor.health import WorkerHealth, workers_ready, workers_stuck
from spanbridge.supervisor.slot import SlotState, WorkerSlot
from spanbridge.supervisor.supervisor import Supervisor
from spanbridge.supervisor.totals import last_errors, totals
from spanbridge.telemetry import Telemetry
from spanbridge.telemetry.metrics.merge import Merger, from_wire

_PATIENCE: Final = 2.0
"""Seconds that a page waits for a worker: probes wait no longer themselves."""
_PROFILE: Final = 15.0
"""Seconds beyond those of a profile until a worker has to have made it."""
_ASKED: Final = {
    "/livez": ("health",),
    "/readyz": ("health",),
    "/metrics": ("metrics",),
    "/status": ("health", "status"),
}


class Overview(Periodic):
    """Asks workers, and keeps what they said last.

    A service that reads the metrics now and then: what a worker that dies has counted since is not known any more.
    """

    name = "overview"

    def __init__(self, name: str, telemetry: Telemetry, clock: Clock) -> None:
        """``name`` is the gateway's."""
        super().__init__()
        self._gateway = name
        self._telemetry = telemetry
        self._clock = clock
        self._slots: list[WorkerSlot] = []
        self._supervisor: Supervisor | None = None
        self._merger = Merger()
        self._health: dict[int, WorkerHealth] = {}
        self._status: dict[int, dict[str, Any]] = {}
        self._answered_ns: dict[int, int] = {}
        self._started_ns = clock.monotonic_ns()
        self._more: dict[str, Callable[[], dict[str, Any]]] = {}

    def watch(self, supervisor: Supervisor, **more: Callable[[], dict[str, Any]]) -> None:
        """Look at these workers, and show ``more`` on /status."""
        self._supervisor, self._slots, self._more = supervisor, supervisor.slots, more
        text = "1 while a worker runs, else 0."
        self._telemetry.gauge("spanbridge.worker.up", self._up, description=text)

    def _up(self) -> list[tuple[float, dict[str, str]]]:
        found = [slot.status() for slot in self._slots]
        return [(int(one.state is SlotState.RUNNING), {"worker": str(one.number)}) for one in found]

    def noted(self, number: int, message: Message) -> None:
        """A worker said something of its own accord: its last metrics, before it ends."""
        if "metrics" in message:
            self._merger.take(str(number), from_wire(message["metrics"]))

    def ended(self, number: int) -> None:
        """A worker's process is gone."""
        self._merger.ended(str(number))
        for known in (self._health, self._status, self._answered_ns):
            known.pop(number, None)

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self._clock.sleep(RATE_PERIOD)
            await self.fresh("/metrics")

    def status(self) -> dict[str, Any]:
        """How often it reads."""
        return {"interval_s": RATE_PERIOD}

    # -- for the admin server ---------------------------------------------------------------------------------------

    async def fresh(self, path: str) -> None:
        """Ask all workers for what a page shows. Never raises: what a worker does not say is what it said before."""
        await asyncio.gather(*(self._ask(slot, what) for slot in self._slots for what in _ASKED.get(path, ())))

    async def _ask(self, slot: WorkerSlot, what: str) -> None:
        process, number = slot.process, slot.number
        try:
            answer = await slot.ask(what, _PATIENCE)
        except ChannelError:
            self._silent(slot)
            return
        if slot.process is not process:  # it answered and is gone
            return
        self._answered_ns[number] = self._clock.monotonic_ns()
        match what:
            case "health":
                reasons = tuple(Reason(code, text) for code, text in answer["reasons"])
                self._health[number] = WorkerHealth(reasons, answer["stuck"])
            case "status":
                self._status[number] = answer
            case _:
                self._merger.take(str(number), from_wire(answer))

    def _silent(self, slot: WorkerSlot) -> None:
        answered, status = self._answered_ns.get(slot.number), slot.status()
        if slot.process is not None and status.state is SlotState.RUNNING:
            seconds = status.since_s if answered is None else (self._clock.monotonic_ns() - answered) / 1e9
            before = self._health.get(slot.number, WorkerHealth())
            self._health[slot.number] = WorkerHealth(before.reasons, before.stuck, seconds)

    def readiness(self) -> Readiness:
        """The verdict for /readyz."""
        draining = self._supervisor is not None and self._supervisor.stopping
        return workers_ready([slot.status() for slot in self._slots], self._health, draining=draining)

    def liveness(self) -> str | None:
        """Why only a restart helps, for /livez."""
        return workers_stuck([slot.status() for slot in self._slots], self._health)

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics of all, and the supervisor's own."""
        self._merger.take("supervisor", self._telemetry.read())
        return self._telemetry.exposition(self._merger.read(), accept)

    def page(self) -> dict[str, Any]:
        """The content of /status: totals, then each worker."""
        return {
            "name": self._gateway,
            "version": __version__,
            "uptime_s": round((self._clock.monotonic_ns() - self._started_ns) / 1e9, 1),
            "ready": self.readiness().ready,
            "draining": self._supervisor is not None and self._supervisor.stopping,
            "workers": [self._row(slot) for slot in self._slots],
            **totals(self._status),
            **{name: read() for name, read in self._more.items()},
            "last_errors": last_errors(self._status),
        }

    def _row(self, slot: WorkerSlot) -> dict[str, Any]:
        status, page = slot.status(), self._status.get(slot.number)
        uplink = {} if page is None else page["uplink"]
        return {
            "worker": slot.number,
            "state": str(status.state),
            "since_s": status.since_s,
            "pid": status.pid,
            "restarts": status.restarts,
            "last_error": status.last_error,
            "ready": workers_ready([status], self._health, draining=False).ready,  # one that is silent is not
            **{key: uplink.get(key) for key in ("received", "sent", "in_flight", "received_per_s", "sent_per_s")},
            "status": page,
        }

    def profile(self, query: str) -> Answer | LaterAnswer:
        """``/debug/pprof/profile?worker=2&seconds=10``: of one worker, the first unless the query names another."""
        wanted = parse_qs(query, max_num_fields=20).get("worker", ["1"])[-1]
        slot = next((one for one in self._slots if str(one.number) == wanted), None)
        if slot is None:
            return error(400, f"`worker` is no number from 1 to {len(self._slots)}")
        taken = slot

        async def make(seconds: float) -> bytes:
            return base64.b64decode(await taken.ask("profile", seconds + _PROFILE, seconds=seconds))

        return Profiles(make)(query)
