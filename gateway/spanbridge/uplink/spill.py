"""Spilling: where RocketMQ does not take a partition's messages in time, the spool does.

Normally a message goes straight through. A partition spills when its oldest message has waited for ``after`` seconds,
or when as much is in flight as may be while RocketMQ fails: everything of it that is on its way is taken back and
spooled in order, and what comes after goes to the spool as well, until the spool holds nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanbridge.core import spooled as form
from spanbridge.core.errors import SpanbridgeError, bare
from spanbridge.core.partition import Partition
from spanbridge.core.spooled import Spooled, TraceIds
from spanbridge.ports import Clock, Reporter, Spool
from spanbridge.telemetry import Tracer
from spanbridge.telemetry.quiet import quietly, report_fault
from spanbridge.uplink.dead_letters import append
from spanbridge.uplink.passes import ReplayBounds
from spanbridge.uplink.recipe import Outgoing, Partitions
from spanbridge.uplink.rejects import Rejects
from spanbridge.uplink.replay import Replay
from spanbridge.uplink.room import Room
from spanbridge.uplink.sender import Sender

_BATCH = 2048
_BATCH_BYTES = 1 << 20
_BATCH_SHARE = 8
"""A batch takes one of so many parts of what the spool may hold: one that is larger than the spool is never on it."""
_PERIOD = 0.25
"""Seconds between two looks at how long messages have waited."""
_HASTE = 1_000_000_000
"""Nanoseconds after which a message may be spooled when no more can be taken in."""
_REST = 10_000_000_000
"""Nanoseconds for which messages that the disk did not take are sent without it, before it is asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillSettings:
    """``after`` (seconds) a partition's messages spill. ``window`` of ``max_in_flight`` may be out of the spool;
    ``qos0_share`` of the spool's bytes may be messages with QoS 0. ``max_age`` (seconds): older ones are dropped;
    ``rejected_max_age`` is that of dead letters."""

    after: float = 5.0
    window: float = 0.5
    qos0_share: float = 0.1
    max_age: float | None = None
    rejected_max_age: float = 30 * 86400.0


class Spill:
    """Decides what is spooled, and acknowledges it once it is. ``several`` says that there are several sources."""

    def __init__(
        self,
        spool: Spool,
        sender: Sender,
        partitions: Partitions,
        replay: Replay,
        *,
        rejects: Rejects,
        tracer: Tracer,
        reporter: Reporter,
        clock: Clock,
        boot_ns: Callable[[], int],
        settings: SpillSettings,
    ) -> None:
        self.settings = settings
        self.spooled = 0
        self.queue: list[Outgoing] = []
        """Messages that wait for the disk; those being written are in :attr:`writing`."""
        self.writing: list[Outgoing] = []
        self._spool = spool
        self._sender = sender
        self._partitions = partitions
        self._replay = replay
        self._rejects = rejects
        self._tracer = tracer
        self._reporter = reporter
        self._clock = clock
        self._boot_ns = boot_ns
        self._leaving: set[str] = set()
        """Filters of routes that no longer spool, while the spool may hold messages that theirs must not overtake."""
        self._failed = False
        self._refused: dict[Partition[Outgoing], int] = {}
        """Partitions whose messages the disk did not take, and when it is asked again (monotonic, ns)."""
        self._room = Room(spool, replay, rejects, reporter)
        self._making_room: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin to look after partitions, and to send what the spool holds. It is open."""
        self._replay.begin()
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="spill")

    async def stop(self) -> None:
        """Spool no more, once what waits for the disk is on it or cannot be. Idempotent."""
        await self._replay.stop()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._failed = False
        self._write()
        while self.writing:
            self._closing = asyncio.get_running_loop().create_future()
            await self._closing
        self._spool.mark(self._replay.first)

    @property
    def sent(self) -> int:
        """Messages that went on out of the spool."""
        return self._replay.sent

    @property
    def idle(self) -> bool:
        """Whether every message goes straight through."""
        return self._replay.idle

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest message in there was received (Unix time, ns), as far as it was read; None: there is none."""
        return None if self._replay.idle else self._replay.oldest_ns

    def use(self, settings: SpillSettings, bounds: ReplayBounds, before: set[str], out: set[str]) -> None:
        """Go by these from now on. Routes may be others as well: ``out`` are the filters of those that do not spool,
        ``before`` of those that did not until now.
        """
        self.settings = settings
        self._leaving = (self._leaving | (out - before)) & out
        self._replay.use(bounds)

    def takes(self, partition: Partition[Outgoing]) -> bool:
        """Whether new messages of ``partition`` go to the spool."""
        return self._replay.holds(partition)

    def works(self, partition: Partition[Outgoing]) -> None:
        """RocketMQ has stored messages of it."""
        self._replay.works(partition)

    def divert(self, partition: Partition[Outgoing]) -> None:
        """Spool what ``partition`` has pending and has not come out of the spool."""
        self._sort(partition, partition.pending)

    def pressed(self) -> None:
        """As much is in flight as may be: what RocketMQ does not take is spooled now."""
        if self._sender.failures.any and self._task is not None:
            self._look(_HASTE)

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(_PERIOD)
            try:
                self._look(int(self.settings.after * 1e9))
                self._failed = False
                self._write()
                self._replay.tidy()
                if self._replay.idle:
                    self._leaving.clear()
            except Exception as fault:  # noqa: BLE001 - the next look may work
                report_fault(self._reporter, bare(fault), "uplink.spill")

    def _look(self, allowed: int) -> None:
        """Spill partitions with a message that has waited for so many nanoseconds."""
        limit = self._clock.monotonic_ns() - allowed
        late: dict[Partition[Outgoing], None] = {}
        for outgoing in self._sender.sending():
            if outgoing.encoded and outgoing.delivery.arrived_ns <= limit:
                late[outgoing.recipe.partition] = None
        for partition in self._partitions.all():
            if partition.pending and partition.pending[0].delivery.arrived_ns <= limit:
                late[partition] = None
        for partition in late:
            self._spill(partition)

    def _spill(self, partition: Partition[Outgoing]) -> None:
        replay = self._replay
        if self._refused.get(partition, 0) > self._clock.monotonic_ns():
            return  # it has to have time for a request
        self._refused.pop(partition, None)
        if not replay.stop_giving(partition) and not any(self._is_mine(one) for one in self._of(partition)):
            return  # what waits came out of the spool, and goes on trying
        self._sort(partition, self._sender.withdraw(partition))
        replay.take_back(partition)
        self._sender.submit(partition)

    def _of(self, partition: Partition[Outgoing]) -> list[Outgoing]:
        under_way = [one for one in self._sender.sending() if one.recipe.partition is partition and one.encoded]
        return under_way + partition.pending

    def _is_mine(self, outgoing: Outgoing) -> bool:
        route = outgoing.recipe.route
        spools = route.spool or route.filter.text in self._leaving
        return spools and outgoing.delivery.source is not self._replay

    def _sort(self, partition: Partition[Outgoing], found: Sequence[Outgoing]) -> None:
        """Queue for the disk what belongs there; the rest stays with the partition."""
        stay = [one for one in found if not self._is_mine(one)]
        partition.pending, partition.pending_bytes = stay, sum(len(one.encoded) for one in stay)
        mine = [one for one in found if self._is_mine(one)]
        if mine:
            self.queue += mine
            self._replay.expect(partition, len(mine))
            self._write()

    def _write(self) -> None:
        """Hand the next batch to the spool. What gathers while it writes is the batch after: one fdatasync for all."""
        if self.writing or self._failed or not self.queue:
            return
        most = min(_BATCH_BYTES, self._spool.limit // _BATCH_SHARE)
        batch: list[Outgoing] = []
        records: list[tuple[int, bytes]] = []
        size = 0
        limit = int(self._spool.limit * self.settings.qos0_share)
        taken = 0
        for outgoing in self.queue:
            taken += 1
            kind, body = self._record(outgoing)
            if not outgoing.delivery.message.qos and self._replay.qos0_bytes + len(body) > limit:
                self._drop(outgoing, "qos0_share", "messages with QoS 0 have their share of the spool")
            else:
                self._replay.qos0_bytes += 0 if outgoing.delivery.message.qos else len(body)
                batch.append(outgoing)
                records.append((kind, body))
                size += len(body)
            if len(batch) >= _BATCH or size >= most:
                break
        del self.queue[:taken]
        if batch:
            self.writing = batch
            self._spool.append(records, self._written)

    def _record(self, outgoing: Outgoing) -> tuple[int, bytes]:
        publish, trace = outgoing.delivery.message, outgoing.trace
        ends = outgoing.recipe.tally.intake.ends
        spooled = Spooled(
            publish,
            self._clock.now_ns(),
            None if trace is None else TraceIds(trace.trace_id, trace.process_id, trace.send_id),
            ends.source if ends.told else "",
        )
        if publish.expiry is not None or self.settings.max_age is not None:
            waited = self._clock.monotonic_ns() - outgoing.delivery.arrived_ns
            spooled.boot_ns = max(0, self._boot_ns() - waited)
        oldest = outgoing.recipe.route.when_full == "drop_oldest"
        return form.DROPPABLE if oldest else form.MESSAGE, form.encode(spooled)

    def _written(self, first: int, error: SpanbridgeError | None) -> None:
        batch, self.writing = self.writing, []
        if error is None:
            self._replay.appended([outgoing.recipe.partition for outgoing in batch])
            self._keep(batch)
        else:
            self.queue[:0] = batch
            for outgoing in batch:
                if not outgoing.delivery.message.qos:
                    self._replay.qos0_bytes -= len(self._record(outgoing)[1])
            self._failed = True
            if error.reason == "full":
                self._full()
            if self._making_room is None:
                self._try_without()
        self._write()
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.set_result(None)

    def _keep(self, batch: list[Outgoing]) -> None:
        """The disk has these: acknowledge them, then tell of it."""
        self.spooled += len(batch)
        traces = [outgoing.trace for outgoing in batch]
        for outgoing in batch:
            outgoing.recipe.tally.spooled += 1
        self._sender.release(batch)
        quietly(self._reporter, self._tracer.spooled, traces, self._clock.now_ns())

    def _full(self) -> None:
        """What becomes of the messages that wait is their routes' choice."""
        newest = [one for one in self.queue if one.recipe.route.when_full == "drop_newest"]
        if newest:
            self.queue = [one for one in self.queue if one.recipe.route.when_full != "drop_newest"]
            for outgoing in newest:
                self._drop(outgoing, "spool_full", "the spool is full")
        if any(one.recipe.route.when_full == "drop_oldest" for one in self.queue) and self._making_room is None:
            self._making_room = asyncio.get_running_loop().create_task(self._make_room(), name="spool's room")

    def _try_without(self) -> None:
        """The disk takes nothing: messages of partitions that have none on it go on being sent, or nobody would notice
        that RocketMQ is back."""
        waiting: dict[Partition[Outgoing], list[Outgoing]] = {}
        for one in self.queue:
            waiting.setdefault(one.recipe.partition, []).append(one)
        now_ns = self._clock.monotonic_ns()
        free = {partition: mine for partition, mine in waiting.items() if self._replay.lets_go(partition)}
        self.queue = [one for one in self.queue if one.recipe.partition not in free]
        self._refused = {one: until for one, until in self._refused.items() if until > now_ns}
        self._refused |= dict.fromkeys(free, now_ns + _REST)
        for partition, mine in free.items():
            partition.pending[:0] = mine
            partition.pending_bytes += sum(len(one.encoded) for one in mine)
            self._sender.submit(partition)

    async def _make_room(self) -> None:
        try:
            if await self._room.make():
                self._failed = False
                self._write()
        finally:
            self._making_room = None

    async def put(self, messages: Sequence[Spooled]) -> None:
        """Put messages at the end of the spool that somebody wants sent again.

        :raises SpanbridgeError: there is no room, or the disk fails; none of them counts then.
        """
        await append(self._spool, form.AGAIN, [form.encode(message) for message in messages])
        self._replay.refilled()

    def _drop(self, outgoing: Outgoing, reason: str, cause: str) -> None:
        quietly(self._reporter, self._tracer.dropped, outgoing.trace, self._clock.now_ns(), reason)
        self._rejects.dropped(outgoing.delivery.message, outgoing.recipe.tally, reason, cause)
        self._replay.expect(outgoing.recipe.partition, -1)
        self._sender.release([outgoing])
