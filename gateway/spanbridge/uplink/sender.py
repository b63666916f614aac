"""The sender: batches out of partitions into RocketMQ, again and again until they are stored."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError, SinkRejected, bare
from spanbridge.core.message import Destination, Publish
from spanbridge.core.partition import Partition
from spanbridge.core.retry import Backoff
from spanbridge.ports import Clock, Reporter, Sink
from spanbridge.telemetry import MessageMetrics, Peer, Tracer
from spanbridge.telemetry.quiet import quietly, report_fault
from spanbridge.uplink import events
from spanbridge.uplink.dead_letters import Kept
from spanbridge.uplink.recipe import Outgoing
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.send_accounts import SendAccounts
from spanbridge.uplink.send_failures import SendFailures, peer_of

if TYPE_CHECKING:
    from spanbridge.uplink.spill import Spill

_SECOND = 1_000_000_000
RETRY_INITIAL = 0.1
RETRY_MAXIMUM = 5.0
"""Seconds. Short, because what waits is bounded anyway and a cluster that is back should be used at once."""


class Sender:
    """Sends what partitions give. ``released`` is called after each batch that left the gateway's care.

    ``reject_after`` is in seconds: how long messages wait for a RocketMQ topic that a device named and that is missing
    or cannot be used. Topics of the configuration are waited for without end.
    """

    def __init__(
        self,
        sink: Sink[Destination],
        rejects: Rejects,
        *,
        tracer: Tracer,
        metrics: MessageMetrics,
        reporter: Reporter,
        clock: Clock,
        released: Callable[[], None],
        cluster: Peer,
        reject_after: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.failures = SendFailures(reporter, clock, reject_after)
        self.accounts = SendAccounts(tracer, metrics, clock, cluster)
        self.tally = self.accounts.tally
        self.last_error: str | None = None
        self.last_error_ns = 0
        self._sink = sink
        self._rejects = rejects
        self._tracer = tracer
        self._reporter = reporter
        self._clock = clock
        self._released = released
        self._draw = draw
        self._tasks: dict[asyncio.Task[None], list[Outgoing]] = {}
        self._stopped = False
        self.spill: Spill | None = None
        """What takes messages while RocketMQ does not, where there is a spool."""

    @property
    def sent(self) -> int:
        """Messages that RocketMQ has stored."""
        return self.tally.messages

    @property
    def requests(self) -> int:
        """Requests under way, those that wait for another attempt included."""
        return len(self._tasks)

    def sending(self) -> Iterable[Outgoing]:
        """Messages in those requests; some may be done."""
        return (outgoing for batch in self._tasks.values() for outgoing in batch)

    def enter(self, partition: Partition[Outgoing]) -> None:
        """Send what ``partition`` has ready, now that messages came in: or have it spooled, behind others of it."""
        if self.spill is not None and self.spill.takes(partition):
            self.spill.divert(partition)
        self.submit(partition)

    def submit(self, partition: Partition[Outgoing]) -> None:
        """Send what ``partition`` has ready. Synchronous: the sending goes on in tasks of this sender."""
        while not self._stopped and (batch := partition.take()) is not None:
            task = asyncio.get_running_loop().create_task(self._run(partition, batch))
            self._tasks[task] = batch
            task.add_done_callback(self._tasks.pop)

    def withdraw(self, partition: Partition[Outgoing]) -> list[Outgoing]:
        """Take back what ``partition`` has, in its order: its requests are given up, whatever became of them."""
        found: list[Outgoing] = []
        for task, batch in self._tasks.items():
            if batch and batch[0].recipe.partition is partition:
                task.cancel()
                if inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
                    partition.done()  # it never runs
                found += [outgoing for outgoing in batch if outgoing.encoded]
                batch.clear()
        found += partition.pending
        partition.pending, partition.pending_bytes = [], 0
        return found

    def release(self, batch: Sequence[Outgoing]) -> None:
        """Acknowledge what the spool has."""
        self._ack(batch)

    async def stop(self) -> None:
        """Give up what is still under way: its messages stay unacknowledged. Idempotent."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, partition: Partition[Outgoing], batch: list[Outgoing]) -> None:
        try:
            await self._deliver(partition, list(batch))
        except Exception as fault:  # noqa: BLE001 - the source brings the batch again
            report_fault(self._reporter, fault, "uplink.sender", len(batch))
            self._nack(batch)
        finally:
            partition.done()
            self.submit(partition)

    async def _deliver(self, partition: Partition[Outgoing], batch: list[Outgoing]) -> None:
        """Try until every message of ``batch`` is stored, rejected, or dropped on purpose."""
        backoff = Backoff(RETRY_INITIAL, RETRY_MAXIMUM)
        if self._clock.monotonic_ns() - batch[0].delivery.arrived_ns >= _SECOND:  # expiry is in whole seconds
            batch = self._without_expired(batch)
        while batch:
            started = self._clock.monotonic_ns()
            error = await self._attempt(partition, batch)
            if error is None:
                self._works(partition)
                self._stored(partition.topic, batch)
                return
            if error.stored:
                self._stored(partition.topic, [batch[index] for index in sorted(error.stored)])
                batch = [one for index, one in enumerate(batch) if index not in error.stored]
            if isinstance(error, SinkRejected):
                await self._isolate(partition, batch, error)
                return
            batch = self._without_hopeless(partition, batch, error)
            if batch:
                self.failures.failed(partition, batch, error, started)
                await self._pause(partition, batch, error, backoff)
                batch = self._without_expired(batch)

    async def _attempt(self, partition: Partition[Outgoing], batch: list[Outgoing]) -> SinkError | None:
        """One request; why it failed, or None."""
        started = self._clock.now_ns()
        error = await self._send(partition, [outgoing.encoded for outgoing in batch])
        ended = self._clock.now_ns()
        if error is None:
            self.tally.stored += 1
            self.tally.stored_ns += max(0, ended - started)
        else:
            self.tally.failed += 1
        try:
            self.accounts.requested(partition.topic, batch, started, ended, error.reason if error is not None else None)
        except Exception as fault:  # noqa: BLE001 - telemetry never stops a message
            report_fault(self._reporter, bare(fault), "telemetry")
        return error

    async def _send(self, partition: Partition[Outgoing], encoded: list[bytes]) -> SinkError | None:
        try:
            await self._sink.send(partition.topic, partition.key, encoded)
        except SinkError as error:
            return bare(error)
        except Exception as fault:  # noqa: BLE001 - kept and tried again, as any other failure
            return SinkError(report_fault(self._reporter, bare(fault), "uplink.sender"), reason="internal")
        return None

    async def _pause(
        self, partition: Partition[Outgoing], batch: list[Outgoing], error: SinkError, backoff: Backoff
    ) -> None:
        delay = backoff.next_delay(self._draw())
        self.last_error, self.last_error_ns = str(error), self._clock.now_ns()
        self._reporter.report(
            events.SendFailed(
                topic=partition.topic,
                reason=error.reason,
                cause=str(error),
                delay=delay,
                count=len(batch),
                peer=peer_of(batch, error),
            )
        )
        await self._clock.sleep(delay)

    async def _isolate(self, partition: Partition[Outgoing], batch: list[Outgoing], error: SinkRejected) -> None:
        """One status holds for a whole batch: halve it, in order, until the message that is meant stands alone."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._deliver(partition, batch[:middle])
            await self._deliver(partition, batch[middle:])
        elif batch:
            again = self._divert(partition, batch[0], error)
            if again is not None:
                try:
                    await self._deliver(partition, [again])
                except Exception:
                    self._nack([again])
                    raise

    def _divert(self, partition: Partition[Outgoing], outgoing: Outgoing, error: SinkError) -> Outgoing | None:
        """Send a message that RocketMQ refused to the rejected topic; return it when that is this partition's."""
        diverted = self._rejects.divert(outgoing, error)
        if diverted is None:
            self._ack([outgoing])
            return None
        intake = outgoing.recipe.tally.intake
        if isinstance(diverted, Kept):
            intake.encoded_bytes -= len(outgoing.encoded)
            outgoing.encoded = b""
            return None
        intake.encoded_bytes += len(diverted.encoded) - len(outgoing.encoded)
        outgoing.encoded = b""
        if diverted.recipe.partition is partition:
            task = asyncio.current_task()
            if task in self._tasks:
                self._tasks[task].append(diverted)
            return diverted
        diverted.recipe.partition.add(diverted)
        self.submit(diverted.recipe.partition)
        return None

    def _without_expired(self, batch: list[Outgoing]) -> list[Outgoing]:
        """Leave out what its sender no longer wants delivered (MQTT 5.0 section 3.3.2.3.3)."""
        now = self._clock.monotonic_ns()
        expired = [outgoing for outgoing in batch if _has_expired(outgoing.delivery, now)]
        if not expired:
            return batch
        for outgoing in expired:
            quietly(self._reporter, self._tracer.dropped, outgoing.trace, self._clock.now_ns(), "expired")
            cause = "its Message Expiry Interval passed before RocketMQ took it"
            self._rejects.dropped(outgoing.delivery.message, outgoing.recipe.tally, "expired", cause)
        self._ack(expired)
        return [outgoing for outgoing in batch if not _has_expired(outgoing.delivery, now)]

    def _without_hopeless(
        self, partition: Partition[Outgoing], batch: list[Outgoing], error: SinkError
    ) -> list[Outgoing]:
        """Reject messages of topics that devices named and that cannot be used."""
        if not self.failures.gives_up(partition, batch, error):
            return batch
        kept = []
        for outgoing in batch:
            again = self._divert(partition, outgoing, error) if outgoing.recipe.by_device else outgoing
            if again is not None:
                kept.append(again)
        return kept

    def _works(self, partition: Partition[Outgoing]) -> None:
        self.failures.works(partition)
        if self.spill is not None:
            self.spill.works(partition)

    def _stored(self, topic: str, batch: list[Outgoing]) -> None:
        """Acknowledge what RocketMQ has, then tell of it."""
        self.tally.messages += len(batch)
        traces = [outgoing.trace for outgoing in batch]
        self._ack(batch)
        try:
            self.accounts.stored(topic, batch, traces)
        except Exception as fault:  # noqa: BLE001 - telemetry never stops a message
            report_fault(self._reporter, bare(fault), "telemetry")

    def _ack(self, batch: Sequence[Outgoing]) -> None:
        """Acknowledge at the sources; what messages took in the sink's form is free."""
        intake = batch[0].recipe.tally.intake
        deliveries: list[Delivery[Publish]] = []
        size = 0
        for outgoing in batch:
            if outgoing.recipe.tally.intake is not intake:
                intake.acked(deliveries, size)
                intake, deliveries, size = outgoing.recipe.tally.intake, [], 0
            deliveries.append(outgoing.delivery)
            size += len(outgoing.encoded)
            outgoing.encoded = b""
        intake.acked(deliveries, size)
        self._released()

    def _nack(self, batch: Sequence[Outgoing]) -> None:
        """Give back what is not done: what is acked, or diverted to another partition, has no encoded form any more."""
        for outgoing in batch:
            if not outgoing.encoded:
                continue
            outgoing.recipe.tally.intake.encoded_bytes -= len(outgoing.encoded)
            outgoing.encoded = b""
            outgoing.delivery.nack("a fault of ours while it was sent")
        self._released()


def _has_expired(delivery: Delivery[Publish], now: int) -> bool:
    return delivery.expires_ns is not None and now >= delivery.expires_ns
