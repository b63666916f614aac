"""The sender: batches out of lanes into RocketMQ, again and again until they are stored."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from spanbridge.core.ack import InFlight
from spanbridge.core.batch import Lane
from spanbridge.core.errors import SinkError, SinkRejected
from spanbridge.core.retry import Backoff
from spanbridge.ports import Clock, Reporter, Sink
from spanbridge.telemetry import Tracer, UplinkMetrics
from spanbridge.uplink import events

_SECOND = 1_000_000_000
RETRY_INITIAL = 0.1
RETRY_MAXIMUM = 5.0
"""Seconds. Short, because what waits is bounded anyway and a cluster that is back should be used at once."""


@dataclass(slots=True)
class BatchTally:
    """Requests so far, for /status. ``failed`` counts attempts, ``stored_ns`` the time that the good ones took."""

    stored: int = 0
    messages: int = 0
    failed: int = 0
    stored_ns: int = 0


class Sender:
    """Sends what lanes give. ``settled`` is called after each batch that left the gateway's care."""

    def __init__(
        self,
        sink: Sink,
        *,
        tracer: Tracer,
        metrics: UplinkMetrics,
        reporter: Reporter,
        clock: Clock,
        settled: Callable[[], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.tally = BatchTally()
        self.last_error: str | None = None
        self._sink = sink
        self._tracer = tracer
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._settled = settled
        self._draw = draw
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    @property
    def sent(self) -> int:
        """Messages that RocketMQ has stored."""
        return self.tally.messages

    @property
    def requests(self) -> int:
        """Requests under way, those that wait for another attempt included."""
        return len(self._tasks)

    def submit(self, lane: Lane) -> None:
        """Send what ``lane`` has ready. Synchronous: the sending goes on in tasks of this sender."""
        while not self._stopped and (batch := lane.take()) is not None:
            task = asyncio.get_running_loop().create_task(self._run(lane, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up what is still under way: its messages stay unacknowledged. Idempotent."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, lane: Lane, batch: list[InFlight]) -> None:
        try:
            await self._deliver(lane, batch)
        except Exception as fault:  # noqa: BLE001 - the batch stays unacknowledged, and health says so
            cause = f"{type(fault).__name__}: {fault}"
            self._reporter.report(events.InternalError(where="uplink.sender", cause=cause, count=len(batch)))
        finally:
            lane.done()
            self.submit(lane)

    async def _deliver(self, lane: Lane, batch: list[InFlight]) -> None:
        """Try until every message of ``batch`` is stored or dropped on purpose."""
        backoff = Backoff(RETRY_INITIAL, RETRY_MAXIMUM)
        failing_since: int | None = None
        if self._clock.monotonic_ns() - batch[0].since_ns >= _SECOND:  # Message Expiry Intervals are whole seconds
            batch = self._without_expired(batch)
        while batch:
            started = self._clock.now_ns()
            error = await self._attempt(lane, batch, started)
            ended = self._clock.now_ns()
            if error is None:
                if failing_since is not None:
                    seconds = _seconds(failing_since, ended)
                    self._reporter.report(events.SendRecovered(topic=lane.topic, seconds=seconds))
                self._done(lane.topic, batch, ended)
                return
            if isinstance(error, SinkRejected):
                await self._isolate(lane, batch, error)
                return
            failing_since = failing_since or started
            await self._pause(lane, batch, error, backoff)
            batch = self._without_expired(batch)

    async def _attempt(self, lane: Lane, batch: list[InFlight], started: int) -> SinkError | None:
        error: SinkError | None = None
        try:
            await self._sink.send(lane.topic, lane.key, [entry.encoded for entry in batch])
        except SinkError as refusal:
            error = refusal
        except Exception as fault:  # noqa: BLE001 - kept and tried again, as any other failure
            cause = f"{type(fault).__name__}: {fault}"
            self._reporter.report(events.InternalError(where="uplink.sender", cause=cause))
            error = SinkError(cause, reason="internal")
        ended = self._clock.now_ns()
        if error is None:
            self.tally.stored += 1
            self.tally.stored_ns += max(0, ended - started)
        else:
            self.tally.failed += 1
        reason = error.reason if error is not None else None
        self._tracer.sent([entry.trace for entry in batch], started, ended, lane.topic, reason)
        self._metrics.operation_duration(lane.topic, _seconds(started, ended), reason)
        self._metrics.sent(lane.topic, len(batch), reason)
        return error

    async def _pause(self, lane: Lane, batch: list[InFlight], error: SinkError, backoff: Backoff) -> None:
        delay = backoff.next_delay(self._draw())
        self.last_error = str(error)
        self._reporter.report(
            events.SendFailed(topic=lane.topic, reason=error.reason, cause=str(error), delay=delay, count=len(batch))
        )
        await self._clock.sleep(delay)

    async def _isolate(self, lane: Lane, batch: list[InFlight], error: SinkRejected) -> None:
        """One status holds for a whole batch: halve it, in order, until the message that is meant stands alone."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._deliver(lane, batch[:middle])
            await self._deliver(lane, batch[middle:])
            return
        entry = batch[0]
        diverted = entry.owner.divert(entry, error.reason, str(error))
        if diverted is None:
            self._settle(batch)
        elif diverted is lane:  # the rejected topic itself refused it
            entry.owner.dropped(entry.publish, entry.filter, error.reason, str(error))
            self._settle(batch)
        else:
            diverted.add(entry)
            self.submit(diverted)

    def _without_expired(self, batch: list[InFlight]) -> list[InFlight]:
        """Leave out what its sender no longer wants delivered (MQTT 5.0 section 3.3.2.3.3)."""
        now = self._clock.monotonic_ns()
        expired = [entry for entry in batch if _expired(entry, now)]
        if not expired:
            return batch
        for entry in expired:
            self._tracer.dropped(entry.trace, self._clock.now_ns(), "expired")
            cause = "its Message Expiry Interval passed before RocketMQ took it"
            entry.owner.dropped(entry.publish, entry.filter, "expired", cause)
        self._settle(expired)
        return [entry for entry in batch if not _expired(entry, now)]

    def _done(self, topic: str, batch: list[InFlight], now: int) -> None:
        self.tally.messages += len(batch)
        self.last_error = None
        self._tracer.settled([entry.trace for entry in batch], now)
        self._metrics.batch(topic, len(batch), _seconds(batch[0].publish.received_ns, now))
        for (owner, filter_, received), entries in groupby(batch, _origin):
            count = sum(1 for _ in entries)
            owner.sent(filter_, count)
            self._metrics.process_duration(filter_, _seconds(received, now), count)
        self._settle(batch)

    def _settle(self, batch: Sequence[InFlight]) -> None:
        owners = {id(entry.owner): entry.owner for entry in batch}
        if len(owners) == 1:
            batch[0].owner.settle(batch)
        else:
            for owner in owners.values():
                owner.settle([entry for entry in batch if entry.owner is owner])
        self._settled()


def _seconds(start: int, end: int) -> float:
    """From one moment of Unix time to another. It may have been set back between them."""
    return max(0.0, (end - start) / 1e9)


def _origin(entry: InFlight) -> tuple[Any, str, int]:
    return entry.owner, entry.filter, entry.publish.received_ns


def _expired(entry: InFlight, now: int) -> bool:
    return entry.expires_ns is not None and now >= entry.expires_ns
