"""Replaying: what the spool holds goes on to RocketMQ, in order, before anything that came later.

It is a source of deliveries like any other, and its acknowledgements are the spool's watermark.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanbridge.core import spooled as form
from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SpanbridgeError, bare
from spanbridge.core.message import Publish
from spanbridge.core.partition import Partition
from spanbridge.core.spooled import Lost, Record, Spooled, SpooledError
from spanbridge.ports import Clock, Link, Reporter, Spool
from spanbridge.telemetry.quiet import report_fault
from spanbridge.uplink import events
from spanbridge.uplink.backlog import Backlog
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.recipe import UNROUTABLE, Outgoing
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.sender import Sender

_PROBE = 32
"""Messages of a partition that fails which are out of the spool at a time, to see whether it works again."""
_CHUNK = 4096
_CHUNK_BYTES = 1 << 20
_RETRY = 1.0


class SpooledDelivery(Delivery[Publish]):
    """A message out of the spool, by its number there. ``partition`` is where it was given."""

    __slots__ = ("intake", "number", "partition")

    intake: Intake
    number: int
    partition: Partition[Outgoing] | None


@dataclass(frozen=True, slots=True)
class ReplayBounds:
    """``messages`` and ``size`` (bytes) may be out of the spool at a time; those over ``max_age`` (s) are dropped."""

    messages: int
    size: int
    max_age: float | None = None


class Replay:
    """Gives what the spool holds to the partitions. ``intakes`` is a live view of the sources' ways in.

    A partition that the spool holds messages of is *behind*: its new messages go to the spool as well.
    """

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
        self.oldest_ns: int | None = None
        """When the message was received that was read last (Unix time, ns)."""
        self._spool = spool
        self._sender = sender
        self._intakes = intakes
        self._rejects = rejects
        self._reporter = reporter
        self._clock = clock
        self._boot_ns = boot_ns
        self._link = link
        self._backlog = Backlog(0)
        self._expected: Counter[Partition[Outgoing]] = Counter()
        """Messages on their way to the disk."""
        self._behind: Counter[Partition[Outgoing]] = Counter()
        """Messages on the disk that were not given yet, as far as that is known."""
        self._out: Counter[Partition[Outgoing]] = Counter()
        """Messages that were given and are not done."""
        self._out_bytes = 0
        self._stopped: dict[Partition[Outgoing], int] = {}
        """Partitions that fail, and since when they do (monotonic, ns)."""
        self._unseen = False
        """Whether the spool may hold messages that nobody knows the partition of."""
        self._left: list[Record | Lost] = []
        self._held: Partition[Outgoing] | None = None
        self._passed_over: Counter[Partition[Outgoing]] = Counter()
        self._whole = True
        """Whether this pass over the spool began with its first message."""
        self._again = False
        """Whether something before the place of this pass waits: what is behind it may not be given first."""
        self._read_to = 0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # What the spill asks and tells

    def begin(self) -> None:
        """Begin with what an earlier run left. The spool is open."""
        self._backlog = Backlog(self._spool.first)
        self._read_to = self._spool.first
        self._unseen = self._spool.end > self._spool.first
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
        return not (self._unseen or self._behind or self._expected or self._stopped or self._backlog.given)

    def holds(self, partition: Partition[Outgoing]) -> bool:
        """Whether messages of ``partition`` are to go to the spool, since others of it are there."""
        return self._unseen or partition in self._behind or partition in self._stopped or partition in self._expected

    def stop_giving(self, partition: Partition[Outgoing]) -> bool:
        """The partition fails: give a few messages of it at a time only. False: that was so before."""
        known = partition in self._stopped
        self._stopped.setdefault(partition, self._clock.monotonic_ns())
        return not known

    def works(self, partition: Partition[Outgoing]) -> None:
        """RocketMQ has stored messages of it."""
        if self._stopped.pop(partition, None) is not None:
            self._again = self._again or partition in self._passed_over
            self._woken.set()

    def expect(self, partition: Partition[Outgoing], count: int) -> None:
        """So many messages of it more wait for the disk."""
        self._add(self._expected, partition, count)

    def appended(self, first: int, partitions: Sequence[Partition[Outgoing]]) -> None:
        """The disk has them, from number ``first`` on."""
        for partition, count in Counter(partitions).items():
            self._add(self._expected, partition, -count)
            self._behind[partition] += count
        self._woken.set()

    def take_back(self, partition: Partition[Outgoing]) -> None:
        """Give up what is pending of a partition that fails, but for a few messages: they are in the spool."""
        mine = [one for one in partition.pending if one.delivery.source is self]
        for outgoing in mine[_PROBE:]:
            outgoing.recipe.tally.intake.encoded_bytes -= len(outgoing.encoded)
            outgoing.encoded = b""
            outgoing.delivery.nack("the partition fails")
        partition.pending = [one for one in partition.pending if one.encoded]
        partition.pending_bytes = sum(len(one.encoded) for one in partition.pending)

    def use(self, bounds: ReplayBounds) -> None:
        """Go by these from now on. Routes are others now: of what is in the spool nobody knows the partitions."""
        self.bounds = bounds
        if self._task is None:
            return
        self._unseen = self._backlog.first < self._spool.end
        self._behind.clear()
        self._begin_pass()

    def dropped(self, numbers: range) -> None:
        """These are gone from the spool."""
        self._backlog.skip(numbers)
        self._begin_pass()

    def tidy(self) -> None:
        """Write down what is done; once all is, leave no file behind."""
        self._spool.mark(self._backlog.first, tidy=self.idle)

    # Acknowledger

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        """See :meth:`spanbridge.ports.Source.ack`."""
        for delivery in deliveries:
            if isinstance(delivery, SpooledDelivery) and self._backlog.finish(delivery.number):
                self._settle(delivery)
                self.sent += 1
                if not delivery.message.qos:
                    self.qos0_bytes = max(0, self.qos0_bytes - delivery.size)
        self._woken.set()

    def nack(self, deliveries: Sequence[Delivery[Publish]], cause: str) -> None:
        """See :meth:`spanbridge.ports.Source.nack`: they are given again, before what is behind them."""
        for delivery in deliveries:
            if isinstance(delivery, SpooledDelivery):
                self._backlog.take_back(delivery.number)
                self._settle(delivery)
                if delivery.partition is not None:
                    self._behind[delivery.partition] += 1
        self._again = True
        self._woken.set()

    def _settle(self, delivery: SpooledDelivery) -> None:
        delivery.intake.replayed -= 1
        self._out_bytes -= delivery.size
        if delivery.partition is not None:
            self._add(self._out, delivery.partition, -1)

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
            return self._held is None or not self._blocked(self._held) or self._passes_over(self._held)
        return self._unseen or any(not self._blocked(partition) for partition in self._behind)

    async def _read(self) -> list[Record | Lost]:
        """The next records; none where the end is reached, or where something before them is to go first.

        :raises SpanbridgeError: the disk fails.
        """
        end = self._spool.end
        found = await self._spool.read(_CHUNK, _CHUNK_BYTES)
        if self._again:
            return []
        if not found:
            self._read_to = max(self._read_to, end)
            if self._spool.end <= self._read_to:
                self._end_pass()
        return found

    def _has_room(self) -> bool:
        return self._backlog.given < self.bounds.messages and self._out_bytes < self.bounds.size

    def _blocked(self, partition: Partition[Outgoing]) -> bool:
        return partition in self._stopped and self._out[partition] >= _PROBE

    def _passes_over(self, partition: Partition[Outgoing]) -> bool:
        """Whether messages behind those of a partition that fails may go: it alone fails."""
        since = self._stopped.get(partition, 0)
        sender = self._sender
        return sender.topic_fails(partition) or sender.stored_ns > since or self._link() is Link.UP

    async def _step(self) -> None:
        if self._again:
            self._begin_pass()
        found, self._left, self._held = self._left, [], None
        found = found or await self._read()
        touched: dict[Partition[Outgoing], None] = {}
        for index, one in enumerate(found):
            if not self._has_room():
                self._left = found[index:]
                break
            if isinstance(one, Lost):
                self._backlog.skip(range(one.first, one.end))
                self._read_to = max(self._read_to, one.end)
            elif not self._give(one, touched):
                self._left = found[index:]
                break
            else:
                self._read_to = max(self._read_to, one.number + 1)
        for partition in touched:
            self._sender.submit(partition)

    def _give(self, record: Record, touched: dict[Partition[Outgoing], None]) -> bool:
        """Give a message to its partition. False: it has to wait, and those behind it with it."""
        if not self._backlog.waits(record.number):
            return True
        made = self._made(record)
        if made is None:
            self._backlog.skip((record.number,))
            return True
        delivery, outgoing = made
        partition = outgoing.recipe.partition
        left_out = partition in self._passed_over
        if left_out or self._blocked(partition):
            delivery.intake.encoded_bytes -= len(outgoing.encoded)
            if not left_out and not self._passes_over(partition):
                self._held = partition
                return False
            self._passed_over[partition] += 1
            return True
        delivery.partition = partition
        self._backlog.give(record.number)
        self._out[partition] += 1
        self._out_bytes += delivery.size
        delivery.intake.replayed += 1
        if partition in self._behind:
            self._add(self._behind, partition, -1)
        partition.add(outgoing)
        touched[partition] = None
        return True

    def _made(self, record: Record) -> tuple[SpooledDelivery, Outgoing] | None:
        """The message of a record, ready to be sent; None: it is none, or was dropped."""
        try:
            spooled = form.decode(record.body)
        except SpooledError as error:
            self._reporter.report(events.SpoolUnreadable(cause=f"message {record.number} is no message: {error}"))
            return None
        self.oldest_ns = spooled.publish.received_ns
        delivery = self._delivery(record, spooled)
        outgoing = None if delivery is None else delivery.intake.replay(delivery, spooled)
        return None if delivery is None or outgoing is None else (delivery, outgoing)

    def _delivery(self, record: Record, spooled: Spooled) -> SpooledDelivery | None:
        """The delivery of a message; None: nobody wants it any more, or nobody is left to say where it goes."""
        if not self._intakes:
            return None
        intake = self._intakes[0]
        if spooled.source:
            intake = next((one for one in self._intakes if one.source.name == spooled.source), intake)
        now = self._clock.monotonic_ns()
        expires: int | None = None
        if spooled.publish.expiry is not None or self.bounds.max_age is not None:
            left, reason = self._left_of(record.number, spooled)
            if reason is not None:
                cause = "it was in the spool for too long"
                self._rejects.dropped(spooled.publish, intake.tallies.get(UNROUTABLE), reason, cause)
                return None
            expires = None if left is None else now + left
        delivery = SpooledDelivery(spooled.publish, self, len(record.body), now, expires)
        delivery.number, delivery.intake, delivery.partition = record.number, intake, None
        return delivery

    def _left_of(self, number: int, spooled: Spooled) -> tuple[int | None, str | None]:
        """Nanoseconds until a message expires, if it does, and why it is to be dropped, if it is."""
        boot, now = self._spool.boot, self._clock.now_ns()
        same_boot = bool(boot) and self._spool.boot_of(number) == boot
        left = form.left_ns(spooled, now_ns=now, boot_now_ns=self._boot_ns(), same_boot=same_boot)
        if left is not None and left <= 0:
            return left, "expired"
        age = (now - spooled.publish.received_ns) / 1e9
        return left, "max_age" if self.bounds.max_age is not None and age > self.bounds.max_age else None

    def _end_pass(self) -> None:
        """The end of the spool is reached: what was passed over in a whole pass is all that it holds."""
        if self._whole:
            self._unseen = False
            self._behind = Counter(self._passed_over)
        if self._behind:
            self._begin_pass()
        else:
            self._whole, self._passed_over = False, Counter()

    def _begin_pass(self) -> None:
        """Read from the first message that is not done."""
        self._left, self._held, self._again = [], None, False
        self._passed_over, self._whole = Counter(), True
        self._read_to = self._backlog.first
        self._spool.rewind(self._backlog.first)
        self._woken.set()

    @staticmethod
    def _add(counter: Counter[Partition[Outgoing]], partition: Partition[Outgoing], count: int) -> None:
        """Change a count. What is zero is not in there."""
        counter[partition] += count
        if counter[partition] <= 0:
            del counter[partition]
