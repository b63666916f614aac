"""Replaying: what the spool holds goes on to RocketMQ, in order, before anything that came later.

It is a source of deliveries like any other, and its acknowledgements are the spool's watermark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SpanbridgeError, bare
from spanbridge.core.message import Publish
from spanbridge.core.partition import Partition
from spanbridge.core.spooled import Record, Spooled, qos_of
from spanbridge.ports import Clock, Link, Reporter, Spool
from spanbridge.telemetry.quiet import report_fault
from spanbridge.uplink import events
from spanbridge.uplink.backlog import Backlog
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.passes import ReplayBounds, ReplayPasses
from spanbridge.uplink.recipe import Outgoing
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.remaking import Remaker, SpooledDelivery
from spanbridge.uplink.sender import Sender
from spanbridge.uplink.standing import PROBE, Counts, add

_RETRY = 1.0


class Replay:
    """Gives what the spool holds to the partitions. ``intakes`` is a live view of the sources' ways in."""

    name = "spool"

    def __init__(
        self,
        spool: Spool,
        sender: Sender,
        intakes: Sequence[Intake],
        *,
        rejects: Rejects,
        reporter: Reporter,
        clock: Clock,
        boot_ns: Callable[[], int],
        link: Callable[[], Link],
        bounds: ReplayBounds,
    ) -> None:
        self.qos0_bytes = 0
        self.sent = 0
        self._spool = spool
        self._remaker = Remaker(
            spool,
            intakes,
            rejects=rejects,
            reporter=reporter,
            clock=clock,
            boot_ns=boot_ns,
            max_age=bounds.max_age,
        )
        self._reporter = reporter
        self._clock = clock
        self._passes = ReplayPasses(
            spool, sender, intakes, self._remaker, self, skipped=self._skip, clock=clock, link=link, bounds=bounds
        )
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # What the spill asks and tells

    def begin(self) -> None:
        """Begin with what an earlier run left. The spool is open."""
        self._passes.backlog = Backlog(self._spool.first)
        self._passes.standing.unseen = self._spool.end > self._spool.first
        self._task = asyncio.get_running_loop().create_task(self._run(), name="replay")

    async def stop(self) -> None:
        """Give nothing more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def first(self) -> int:
        """The number of the first message that is not done."""
        return self._passes.backlog.first

    @property
    def idle(self) -> bool:
        """Whether everything goes straight through."""
        return self._passes.standing.idle and not self._passes.backlog.given

    def waits(self, number: int) -> bool:
        """Whether a message of the spool is neither done nor on its way. It may be asked from another thread."""
        return self._passes.backlog.waits(number)

    def holds(self, partition: Partition[Outgoing]) -> bool:
        """Whether messages of ``partition`` are to go to the spool, since others of it are there."""
        return self._passes.standing.holds(partition)

    def stop_giving(self, partition: Partition[Outgoing]) -> bool:
        """The partition fails: give a few messages of it at a time only. False: that was so before."""
        known = partition in self._passes.standing.stopped
        self._passes.standing.stopped.setdefault(partition, self._clock.monotonic_ns())
        return not known

    def works(self, partition: Partition[Outgoing]) -> None:
        """RocketMQ has stored messages of it."""
        if self._passes.standing.stopped.pop(partition, None) is not None:
            self._passes.again = self._passes.again or partition in self._passes.passed_over
            self._woken.set()

    def expect(self, partition: Partition[Outgoing], count: int) -> None:
        """So many messages of it more wait for the disk."""
        add(self._passes.standing.expected, partition, count)

    def appended(self, partitions: Sequence[Partition[Outgoing]]) -> None:
        """The disk has what was expected of these."""
        self._passes.standing.appended(partitions)
        self._woken.set()

    def refilled(self) -> None:
        """Somebody has put messages at the end of the spool: of these nobody knows the partitions."""
        self._passes.standing.unseen = self._passes.again = True
        self._woken.set()

    def lets_go(self, partition: Partition[Outgoing]) -> bool:
        """Whether nothing of it is in the spool: then it counts as one that works, and nothing of it is expected."""
        return self._passes.standing.lets_go(partition)

    def take_back(self, partition: Partition[Outgoing]) -> None:
        """Give up what is pending of a partition that fails, but for a few messages: they are in the spool."""
        mine = [one for one in partition.pending if one.delivery.source is self]
        for outgoing in mine[PROBE:]:
            outgoing.recipe.tally.intake.encoded_bytes -= len(outgoing.encoded)
            outgoing.encoded = b""
            outgoing.delivery.nack("the partition fails")
        partition.pending = [one for one in partition.pending if one.encoded]
        partition.pending_bytes = sum(len(one.encoded) for one in partition.pending)

    def use(self, bounds: ReplayBounds) -> None:
        """Go by these from now on. Routes are others now: of what is in the spool nobody knows the partitions."""
        self._passes.bounds = bounds
        self._remaker.max_age = bounds.max_age
        if self._task is None:
            return
        self._passes.standing.unseen = self._passes.backlog.first < self._spool.end
        self._passes.standing.behind.clear()
        self._passes.again = True
        self._woken.set()

    def dropped(self, numbers: range) -> None:
        """These are gone from the spool."""
        self._passes.backlog.skip(numbers)
        self._passes.again = True
        self._woken.set()

    @property
    def oldest_ns(self) -> int | None:
        """When the message was received that was read last (Unix time, ns)."""
        return self._remaker.oldest_ns

    def intake_of(self, spooled: Spooled) -> Intake | None:
        """The way in of the source that a message came from."""
        return self._remaker.intake_of(spooled)

    def tidy(self) -> None:
        """Write down what is done; once all is, leave no file behind. Called now and then."""
        for partition in self._passes.standing.over():  # RocketMQ will never say that it works
            self.works(partition)
        if self.idle:
            self.qos0_bytes = 0
        else:  # whether something may go depends also on what nobody tells us
            self._woken.set()
        self._spool.mark(self._passes.backlog.first, tidy=self.idle)

    def _skip(self, record: Record) -> None:
        """A record goes nowhere."""
        if not qos_of(record.body):
            self.qos0_bytes = max(0, self.qos0_bytes - len(record.body))

    # Acknowledger

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        """See :meth:`spanbridge.ports.Source.ack`."""
        done: Counts = {}
        size = 0
        ours = cast("Sequence[SpooledDelivery]", deliveries)  # nobody else makes any of this source
        finished = self._passes.backlog.finish(ours)
        partition, count = None, 0
        for delivery in finished:
            delivery.intake.replayed -= 1
            size += delivery.size
            if delivery.partition is not partition:  # those of one request have the same
                _count(done, partition, count)
                partition, count = delivery.partition, 0
            count += 1
            if not delivery.message.qos:
                self.qos0_bytes = max(0, self.qos0_bytes - delivery.size)
        _count(done, partition, count)
        self._passes.backlog.advance()
        self.sent += len(finished)
        self._passes.out_bytes -= size
        for partition, count in done.items():
            add(self._passes.standing.out, partition, -count)
        self._woken.set()

    def nack(self, deliveries: Sequence[Delivery[Publish]], cause: str) -> None:
        """See :meth:`spanbridge.ports.Source.nack`: they are given again, before what is behind them."""
        for delivery in deliveries:
            if isinstance(delivery, SpooledDelivery):
                self._passes.backlog.take_back(delivery.number)
                delivery.intake.replayed -= 1
                self._passes.out_bytes -= delivery.size
                if delivery.partition is not None:
                    add(self._passes.standing.out, delivery.partition, -1)
                    add(self._passes.standing.behind, delivery.partition, 1)
        self._passes.again = True
        self._woken.set()

    # Giving

    async def _run(self) -> None:
        while True:
            if not self._passes.wanted():
                self._woken.clear()
                await self._woken.wait()
                continue
            try:
                await self._passes.step()
            except SpanbridgeError as error:
                self._reporter.report(events.SpoolUnreadable(cause=str(error)))
                await self._clock.sleep(_RETRY)
            except Exception as fault:  # noqa: BLE001 - what the spool holds must not stay there for a fault of ours
                report_fault(self._reporter, bare(fault), "uplink.replay")
                await self._clock.sleep(_RETRY)
                self._passes.begin()


def _count(done: Counts, partition: Partition[Outgoing] | None, count: int) -> None:
    if partition is not None:
        done[partition] = done.get(partition, 0) + count
