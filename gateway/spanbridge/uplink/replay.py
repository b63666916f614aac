"""Replaying: what the spool holds goes on to RocketMQ, in order, before anything that came later.

It is a source of deliveries like any other, and its acknowledgements are the spool's watermark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SpanbridgeError, bare
from spanbridge.core.message import Publish
from spanbridge.core.partition import Partition
from spanbridge.core.spooled import Lost, Record, Spooled
from spanbridge.ports import Clock, Link, Reporter, Spool
from spanbridge.telemetry.quiet import report_fault
from spanbridge.uplink import events
from spanbridge.uplink.backlog import Backlog
from spanbridge.uplink.dead_letters import Kept
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.recipe import Outgoing
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.remaking import Remaker, SpooledDelivery
from spanbridge.uplink.sender import Sender
from spanbridge.uplink.standing import PROBE, Counts, Standing, add

_CHUNK = 4096
_CHUNK_BYTES = 1 << 20
_RETRY = 1.0


@dataclass(frozen=True, slots=True)
class ReplayBounds:
    """``messages`` and ``size`` (bytes) may be out of the spool at a time; those over ``max_age`` (s) are dropped."""

    messages: int
    size: int
    max_age: float | None = None


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
        self.bounds = bounds
        self.qos0_bytes = 0
        self.sent = 0
        self._spool = spool
        self._sender = sender
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
        self._link = link
        self._backlog = Backlog(0)
        self._standing = Standing()
        self._out_bytes = 0
        self._left: list[Record | Lost] = []
        self._held: Partition[Outgoing] | None = None
        self._passed_over: Counts = {}
        self._whole = True
        """Whether this pass over the spool began with its first message."""
        self._again = False
        """Whether something before the place of this pass waits: what is behind it may not be given first."""
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # What the spill asks and tells

    def begin(self) -> None:
        """Begin with what an earlier run left. The spool is open."""
        self._backlog = Backlog(self._spool.first)
        self._standing.unseen = self._spool.end > self._spool.first
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
        return self._backlog.first

    @property
    def idle(self) -> bool:
        """Whether everything goes straight through."""
        return self._standing.idle and not self._backlog.given

    def waits(self, number: int) -> bool:
        """Whether a message of the spool is neither done nor on its way. It may be asked from another thread."""
        return self._backlog.waits(number)

    def holds(self, partition: Partition[Outgoing]) -> bool:
        """Whether messages of ``partition`` are to go to the spool, since others of it are there."""
        return self._standing.holds(partition)

    def stop_giving(self, partition: Partition[Outgoing]) -> bool:
        """The partition fails: give a few messages of it at a time only. False: that was so before."""
        known = partition in self._standing.stopped
        self._standing.stopped.setdefault(partition, self._clock.monotonic_ns())
        return not known

    def works(self, partition: Partition[Outgoing]) -> None:
        """RocketMQ has stored messages of it."""
        if self._standing.stopped.pop(partition, None) is not None:
            self._again = self._again or partition in self._passed_over
            self._woken.set()

    def expect(self, partition: Partition[Outgoing], count: int) -> None:
        """So many messages of it more wait for the disk."""
        add(self._standing.expected, partition, count)

    def appended(self, partitions: Sequence[Partition[Outgoing]]) -> None:
        """The disk has what was expected of these."""
        self._standing.appended(partitions)
        self._woken.set()

    def refilled(self) -> None:
        """Somebody has put messages at the end of the spool: of these nobody knows the partitions."""
        self._standing.unseen = self._again = True
        self._woken.set()

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
        self.bounds = bounds
        self._remaker.max_age = bounds.max_age
        if self._task is None:
            return
        self._standing.unseen = self._backlog.first < self._spool.end
        self._standing.behind.clear()
        self._again = True
        self._woken.set()

    def dropped(self, numbers: range) -> None:
        """These are gone from the spool."""
        self._backlog.skip(numbers)
        self._again = True
        self._woken.set()

    @property
    def oldest_ns(self) -> int | None:
        """When the message was received that was read last (Unix time, ns)."""
        return self._remaker.oldest_ns

    def intake_of(self, spooled: Spooled) -> Intake | None:
        """The way in of the source that a message came from."""
        return self._remaker.intake_of(spooled)

    def tidy(self) -> None:
        """Write down what is done; once all is, leave no file behind."""
        self._spool.mark(self._backlog.first, tidy=self.idle)

    # Acknowledger

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        """See :meth:`spanbridge.ports.Source.ack`."""
        done: Counts = {}
        size = 0
        finished = self._backlog.finish(cast("Sequence[SpooledDelivery]", deliveries))  # nobody else makes any of ours
        for delivery in finished:
            delivery.intake.replayed -= 1
            size += delivery.size
            partition = delivery.partition
            if partition is not None:
                done[partition] = done.get(partition, 0) + 1
            if not delivery.message.qos:
                self.qos0_bytes = max(0, self.qos0_bytes - delivery.size)
        self._backlog.advance()
        self.sent += len(finished)
        self._out_bytes -= size
        for partition, count in done.items():
            add(self._standing.out, partition, -count)
        self._woken.set()

    def nack(self, deliveries: Sequence[Delivery[Publish]], cause: str) -> None:
        """See :meth:`spanbridge.ports.Source.nack`: they are given again, before what is behind them."""
        for delivery in deliveries:
            if isinstance(delivery, SpooledDelivery):
                self._backlog.take_back(delivery.number)
                delivery.intake.replayed -= 1
                self._out_bytes -= delivery.size
                if delivery.partition is not None:
                    add(self._standing.out, delivery.partition, -1)
                    add(self._standing.behind, delivery.partition, 1)
        self._again = True
        self._woken.set()

    # Giving

    async def _run(self) -> None:
        while True:
            if not self._wanted():
                self._woken.clear()
                await self._woken.wait()
                continue
            try:
                await self._step()
            except SpanbridgeError as error:
                self._reporter.report(events.SpoolUnreadable(cause=str(error)))
                await self._clock.sleep(_RETRY)
            except Exception as fault:  # noqa: BLE001 - what the spool holds must not stay there for a fault of ours
                report_fault(self._reporter, bare(fault), "uplink.replay")
                await self._clock.sleep(_RETRY)
                self._begin_pass()

    def _wanted(self) -> bool:
        """Whether something is to be read and there is room for it."""
        if self._backlog.given > self.bounds.messages // 2 or self._out_bytes > self.bounds.size // 2:
            return False  # a chunk at a time: to look for a single message costs what it costs to look for hundreds
        if self._again:
            return True
        if self._left:
            return self._held is None or not self._standing.blocked(self._held) or self._passes_over(self._held)
        standing = self._standing
        return standing.unseen or any(not standing.blocked(partition) for partition in standing.behind)

    async def _read(self) -> list[Record | Lost]:
        """The next records; none where the end is reached, or where something before them is to go first.

        :raises SpanbridgeError: the disk fails.
        """
        end = self._spool.end
        found = await self._spool.read(_CHUNK, _CHUNK_BYTES)
        if self._again:
            return []
        if not found and self._spool.end <= end:
            self._end_pass()
        return found

    def _has_room(self) -> bool:
        return self._backlog.given < self.bounds.messages and self._out_bytes < self.bounds.size

    def _passes_over(self, partition: Partition[Outgoing]) -> bool:
        """Whether messages behind those of a partition that fails may go: it alone fails."""
        since = self._standing.stopped.get(partition, 0)
        sender = self._sender
        return sender.failures.topic_fails(partition) or sender.failures.stored_ns > since or self._link() is Link.UP

    async def _step(self) -> None:
        if self._again:
            self._begin_pass()
        found, self._left, self._held = self._left, [], None
        found = found or await self._read()
        given: dict[Partition[Outgoing], list[Outgoing]] = {}
        try:
            self._left = found[self._take_out(found, given) :]
        finally:
            self._standing.given({partition: len(mine) for partition, mine in given.items()})
            for partition, mine in given.items():
                partition.extend(mine)
                self._sender.submit(partition)

    def _take_out(self, found: Sequence[Record | Lost], given: dict[Partition[Outgoing], list[Outgoing]]) -> int:
        """Make messages for their partitions; how far that went: the rest has to wait. Hot path while a backlog drains.

        ``given`` gets those of each partition.
        """
        backlog, bounds, remake = self._backlog, self.bounds, self._remaker.make
        now_ns, begun_ns = self._clock.monotonic_ns(), self._clock.now_ns()
        waits, free, unknown = backlog.waits, dict[Partition[Outgoing], list[Outgoing]](), backlog.end
        for index, one in enumerate(found):
            if backlog.given >= bounds.messages or self._out_bytes >= bounds.size:
                return index
            if isinstance(one, Lost):
                backlog.skip(range(one.first, one.end))
                continue
            number = one.number
            if number >= unknown or waits(number):
                made = remake(one, self, now_ns, begun_ns)
                if made is None:
                    backlog.skip((number,))
                    continue
                delivery, outgoing = made
                if not isinstance(outgoing, Kept):  # a dead letter's acknowledgement is the disk's
                    partition = outgoing.recipe.partition
                    mine = free.get(partition)
                    if mine is None and (mine := self._room(partition, given, free)) is None:
                        delivery.intake.encoded_bytes -= len(outgoing.encoded)
                        if partition not in self._passed_over and not self._passes_over(partition):
                            self._held = partition
                            return index
                        add(self._passed_over, partition, 1)
                        continue
                    delivery.partition = partition
                    mine.append(outgoing)
                delivery.intake.replayed += 1
                backlog.give(number)
                self._out_bytes += delivery.size
        return len(found)

    def _room(
        self,
        partition: Partition[Outgoing],
        given: dict[Partition[Outgoing], list[Outgoing]],
        free: dict[Partition[Outgoing], list[Outgoing]],
    ) -> list[Outgoing] | None:
        """Where another message of it goes in ``given``; None: none may. ``free`` gets what nothing limits now."""
        if partition in self._passed_over:
            return None
        mine = given.setdefault(partition, [])
        if partition not in self._standing.stopped:
            free[partition] = mine
        elif self._standing.out.get(partition, 0) + len(mine) >= PROBE:
            return None
        return mine

    def _end_pass(self) -> None:
        """The end of the spool is reached: what was passed over in a whole pass is all that it holds."""
        standing = self._standing
        if self._whole:
            standing.unseen = False
            standing.behind = dict(self._passed_over)
        if standing.behind:
            self._begin_pass()
        else:
            self._whole, self._passed_over = False, {}

    def _begin_pass(self) -> None:
        """Read from the first message that is not done."""
        self._left, self._held, self._again = [], None, False
        self._passed_over, self._whole = {}, True
        self._spool.rewind(self._backlog.first)
        self._woken.set()
