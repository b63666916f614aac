"""Reads the lag every period, and keeps the last reading for metrics and /status."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from spanbridge.lag.events import LagReadable, LagUnreadable
from spanbridge.lag.options import LagOptions
from spanbridge.lag.reader import LagReader
from spanbridge.lag.reading import LagReading, LagState, TopicLag
from spanbridge.ports import Clock, Offsets, Reporter

_STALE: Final = 3
"""Periods after which a reading is not shown any more: an old number looks like a new one."""


class LagService:
    """One task. Nothing that it meets changes the gateway's health: messages do not pass here."""

    name = "lag"

    def __init__(self, offsets: Offsets, options: LagOptions, clock: Clock, reporter: Reporter) -> None:
        self._offsets = offsets
        self._options = options
        self._clock = clock
        self._reporter = reporter
        self._reader = LagReader(offsets, options, clock)
        self._reading: LagReading | None = None
        self._read_ns = 0
        self._readings = 0
        self._failing = False
        self._fault: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to read."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """End, and close the connections. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._offsets.close()

    @property
    def reading(self) -> LagReading | None:
        """The last reading; None before the first, and when it is too old to be shown."""
        if self._reading is None:
            return None
        age = (self._clock.monotonic_ns() - self._read_ns) / 1e9
        return self._reading if age <= _STALE * self._options.period + self._reading.took else None

    def status(self) -> dict[str, Any]:
        """How often it has read, what that took, and what could not be read."""
        last = self._reading
        return {
            "readings": self._readings,
            "period_s": self._options.period,
            "degraded": self._fault is not None or (last is not None and bool(last.errors)),
            "last_error": self._fault or (last.errors[0][0] if last is not None and last.errors else None),
            "requests": last.requests if last is not None else None,
            "took_s": round(last.took, 3) if last is not None else None,
        }

    def show(self) -> dict[str, Any]:
        """For /status: each group in each topic."""
        reading = self.reading
        if reading is None:
            return {"groups": [], "age_s": None}
        age = (self._clock.monotonic_ns() - self._read_ns) / 1e9
        return {"age_s": round(age, 1), **reading_as_dict(reading)}

    async def _run(self) -> None:
        while True:
            await self._read()
            await self._clock.sleep(self._options.period)

    async def _read(self) -> None:
        try:
            reading = await self._reader.read()
        except Exception as fault:  # noqa: BLE001 - a service that ends for good would show nothing any more
            self._fault = f"{type(fault).__name__}: {fault}"
            self._tell(self._fault, "internal", 1)
            return
        self._fault, self._reading, self._read_ns = None, reading, self._clock.monotonic_ns()
        self._readings += 1
        if reading.errors:
            cause, reason = reading.errors[0]
            unread = sum(row.state is LagState.UNREADABLE for row in reading.rows)
            self._tell(cause, reason, max(1, unread))
        elif self._failing:
            self._failing = False
            self._reporter.report(LagReadable())

    def _tell(self, cause: str, reason: str, count: int) -> None:
        self._failing = True
        self._reporter.report(LagUnreadable(cause=cause, reason=reason, count=count))


def reading_as_dict(reading: LagReading) -> dict[str, Any]:
    """A reading as JSON: for /status and for `spanbridge lag --json`."""
    return {
        "requests": reading.requests,
        "took_s": round(reading.took, 3),
        "groups": [_row(row) for row in reading.rows],
        "dead_letters": dict(reading.dead_letters),
        "errors": [text for text, _ in reading.errors],
    }


def _row(row: TopicLag) -> dict[str, Any]:
    return {
        "group": row.group,
        "topic": row.topic,
        "state": str(row.state),
        "means": str(row.means),
        "retry": row.retry,
        "lag": row.lag,
        "age_s": _rounded(row.age),
        "members": row.members,
        "uncommitted": row.uncommitted,
        "expired": row.expired,
        "error": row.error,
        "queues": [
            {
                "broker": queue.queue.broker,
                "queue": queue.queue.queue,
                "max_offset": queue.max_offset,
                "committed": queue.committed,
                "lag": queue.lag,
                "age_s": _rounded(queue.age),
            }
            for queue in row.queues
        ],
    }


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 1)
