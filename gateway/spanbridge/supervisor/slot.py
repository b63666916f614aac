"""One worker's place: started, started again when it died, stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from spanbridge.core.retry import Backoff
from spanbridge.ports import Clock, Reporter
from spanbridge.supervisor.channel import ChannelClosed, Message
from spanbridge.supervisor.events import WorkerDied, WorkerHopeless, WorkerKilled, WorkerStarted
from spanbridge.supervisor.process import Launch, WorkerProcess, describe

HOPELESS: Final = 2
"""Exit code of a worker whose configuration somebody has to mend: the same start would fail again."""
_PROVED: Final = 30.0
"""Seconds after which a worker that dies has worked: the next one starts after the shortest pause."""


class SlotState(StrEnum):
    """What there is in a worker's place."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    """It died, and is started again after a pause."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """For /status and health. ``since_s`` is how long it is in this state, in seconds."""

    number: int
    state: SlotState
    since_s: float
    pid: int | None
    restarts: int
    last_error: str | None


class WorkerSlot:
    """Keeps one worker running. ``start`` makes the message that a worker begins with."""

    def __init__(
        self,
        number: int,
        launch: Launch,
        start: Callable[[], Message],
        *,
        reporter: Reporter,
        clock: Clock,
        noted: Callable[[int, Message], None],
        ended: Callable[[int], None],
        backoff: Backoff,
    ) -> None:
        """``noted`` is called with each note of the worker, ``ended`` once a process of it is gone."""
        self.number = number
        self.process: WorkerProcess | None = None
        self.failed = False
        self._launch = launch
        self._start = start
        self._reporter = reporter
        self._clock = clock
        self._noted = noted
        self._ended = ended
        self._backoff = backoff
        self._stopping = asyncio.Event()
        self._stop_cause = ""
        self._state = SlotState.STARTING
        self._since_ns = clock.monotonic_ns()
        self._restarts = 0
        self._last_error: str | None = None

    async def keep(self) -> int:
        """Have a worker until :meth:`stop`, or until one of them is hopeless; the last one's exit code."""
        code = 0
        while not self._stopping.is_set():
            code, cause = await self._once()
            if self._stopping.is_set():
                self.failed = code != 0
                break
            if code == HOPELESS:
                self.failed = True
                self._last_error = cause
                self._reporter.report(WorkerHopeless(worker=self.number, cause=cause))
                break
            await self._pause(cause)
        self._become(SlotState.STOPPED)
        return code

    async def _once(self) -> tuple[int, str]:
        """Start a worker, and wait for its end; its exit code, and that in words."""
        self._become(SlotState.STARTING)
        start = self._start()
        try:
            process = self.process = await self._launch(self.number, start, self._take)
        except OSError as error:
            return 1, f"could not be started: {(error.strerror or type(error).__name__).lower()}"
        self._reporter.report(WorkerStarted(worker=self.number, pid=process.pid))
        if self._stopping.is_set():  # while it was being started
            self.note({"stop": self._stop_cause})
        elif self._start() is not start:  # a change of the configuration has missed it
            self.kill("began with the former configuration")
        try:
            code = await process.wait()
            return code, describe(code)
        finally:
            self.process = None
            self._ended(self.number)

    async def _pause(self, cause: str) -> None:
        if self._age() >= _PROVED:
            self._backoff.reset()
        delay = self._backoff.next_delay(random.random())  # noqa: S311 - jitter, not a secret
        self._restarts += 1
        self._last_error = cause
        self._become(SlotState.WAITING)
        self._reporter.report(WorkerDied(worker=self.number, cause=cause, retry_in=delay))
        waiting = asyncio.create_task(self._clock.sleep(delay), name=f"worker {self.number} pause")
        stopping = asyncio.create_task(self._stopping.wait(), name=f"worker {self.number} stop")
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, stopping):
            task.cancel()
        await asyncio.gather(waiting, stopping, return_exceptions=True)

    def stop(self, cause: str) -> None:
        """Have the worker drain and end. Synchronous."""
        self._stop_cause = cause
        self._stopping.set()
        self.note({"stop": cause})

    def kill(self, why: str) -> None:
        """End it by force. Synchronous."""
        if self.process is not None:
            self._reporter.report(WorkerKilled(worker=self.number, why=why))
            self.process.kill()

    def note(self, message: Message) -> None:
        """Tell it something, if it is there."""
        if self.process is not None:
            self.process.note(message)

    async def ask(self, what: str, timeout: float, **more: Any) -> Any:
        """Ask it something.

        :raises ChannelClosed: it is not there.
        :raises ChannelError: there is no answer in time, or it could not do it.
        """
        if self.process is None:
            raise ChannelClosed("it is not running")
        return await self.process.ask(what, timeout, **more)

    def status(self) -> SlotStatus:
        """As of now."""
        pid = None if self.process is None else self.process.pid
        return SlotStatus(self.number, self._state, round(self._age(), 1), pid, self._restarts, self._last_error)

    def _take(self, message: Message) -> None:
        if "running" in message:
            self._become(SlotState.RUNNING)
        self._noted(self.number, message)

    def _become(self, state: SlotState) -> None:
        self._state, self._since_ns = state, self._clock.monotonic_ns()

    def _age(self) -> float:
        return (self._clock.monotonic_ns() - self._since_ns) / 1e9
