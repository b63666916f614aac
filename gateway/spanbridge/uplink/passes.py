"""Going over the spool, from the first message that is not done: what may go is given to its partition.

A partition that fails is passed over where others work, and gets nothing more in that pass, or order would break.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanbridge.core.delivery import Acknowledger
from spanbridge.core.message import Publish
from spanbridge.core.partition import Partition
from spanbridge.core.spooled import Lost, Record
from spanbridge.ports import Clock, Link, Spool
from spanbridge.uplink.backlog import Backlog
from spanbridge.uplink.dead_letters import Kept
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.recipe import Outgoing
from spanbridge.uplink.remaking import Remaker
from spanbridge.uplink.sender import Sender
from spanbridge.uplink.standing import PROBE, Counts, Standing, add

_CHUNK = 4096
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ReplayBounds:
    """``messages`` and ``size`` (bytes) may be out of the spool at a time; those over ``max_age`` (s) are dropped."""

    messages: int
    size: int
    max_age: float | None = None


class ReplayPasses:
    """One pass after another, for ``acknowledger``. ``link`` is how RocketMQ's connection is; ``skipped`` is told of
    records that go nowhere; ``intakes`` is a live view of the sources' ways in.

    ``backlog`` and ``standing`` say which messages are on their way; ``out_bytes`` what those take on the disk.
    """

    def __init__(
        self,
        spool: Spool,
        sender: Sender,
        intakes: Sequence[Intake],
        remaker: Remaker,
        acknowledger: Acknowledger[Publish],
        *,
        skipped: Callable[[Record], None],
        clock: Clock,
        link: Callable[[], Link],
        bounds: ReplayBounds,
    ) -> None:
        self.bounds = bounds
        self.backlog = Backlog(0)
        self.standing = Standing()
        self.out_bytes = 0
        self.again = False
        """Whether something before the place of this pass waits: what is behind it may not be given first."""
        self.passed_over: Counts = {}
        self._spool = spool
        self._sender = sender
        self._intakes = intakes
        self._skipped = skipped
        self._remaker = remaker
        self._acknowledger = acknowledger
        self._clock = clock
        self._link = link
        self._left: list[Record | Lost] = []
        self._held: Partition[Outgoing] | None = None
        self._whole = True
        """Whether this pass over the spool began with its first message."""

    def wanted(self) -> bool:
        """Whether something is to be read and there is room for it."""
        if not self._intakes:
            return False  # nobody's routes take them: they wait for a connection
        if self.backlog.given > self.bounds.messages // 2 or self.out_bytes > self.bounds.size // 2:
            return False  # a chunk at a time: to look for a single message costs what it costs to look for hundreds
        if self.again:
            return True
        if self._left:
            return self._held is None or not self.standing.blocked(self._held) or self._passes_over(self._held)
        standing = self.standing
        return standing.unseen or any(not standing.blocked(partition) for partition in standing.behind)

    async def _read(self) -> list[Record | Lost]:
        """The next records; none where the end is reached, or where something before them is to go first.

        :raises SpanbridgeError: the disk fails.
        """
        end = self._spool.end
        found = await self._spool.read(_CHUNK, _CHUNK_BYTES)
        if self.again:
            return []
        if not found and self._spool.end <= end:
            self._end_pass()
        return found

    def _passes_over(self, partition: Partition[Outgoing]) -> bool:
        """Whether messages behind those of a partition that fails may go: it alone fails."""
        since = self.standing.stopped.get(partition, 0)
        sender = self._sender
        return sender.failures.topic_fails(partition) or sender.failures.stored_ns > since or self._link() is Link.UP

    async def step(self) -> None:
        """Give what there is room for.

        :raises SpanbridgeError: the disk fails.
        """
        if self.again:
            self.begin()
        found, self._left, self._held = self._left, [], None
        found = found or await self._read()
        if not self._intakes:  # the last one left meanwhile
            self.again = True
            return
        given: dict[Partition[Outgoing], list[Outgoing]] = {}
        try:
            self._left = found[self._take_out(found, given) :]
        finally:
            self.standing.given({partition: len(mine) for partition, mine in given.items()})
            for partition, mine in given.items():
                partition.extend(mine)
                self._sender.submit(partition)

    def _take_out(self, found: Sequence[Record | Lost], given: dict[Partition[Outgoing], list[Outgoing]]) -> int:
        """Make messages for their partitions; how far that went: the rest has to wait. Hot path while a backlog drains.

        ``given`` gets those of each partition.
        """
        backlog, bounds, remake = self.backlog, self.bounds, self._remaker.make
        now_ns, begun_ns = self._clock.monotonic_ns(), self._clock.now_ns()
        waits, free, unknown = backlog.waits, dict[Partition[Outgoing], list[Outgoing]](), backlog.end
        for index, one in enumerate(found):
            if backlog.given >= bounds.messages or self.out_bytes >= bounds.size:
                return index
            if isinstance(one, Lost):
                backlog.skip(range(one.first, one.end))
                continue
            number = one.number
            if number >= unknown or waits(number):
                made = remake(one, self._acknowledger, now_ns, begun_ns)
                if made is None:
                    backlog.skip((number,))
                    self._skipped(one)
                    continue
                delivery, outgoing = made
                if not isinstance(outgoing, Kept):  # a dead letter's acknowledgement is the disk's
                    partition = outgoing.recipe.partition
                    mine = free.get(partition)
                    if mine is None and (mine := self._room(partition, given, free)) is None:
                        delivery.intake.encoded_bytes -= len(outgoing.encoded)
                        if partition not in self.passed_over and not self._passes_over(partition):
                            self._held = partition
                            return index
                        add(self.passed_over, partition, 1)
                        continue
                    delivery.partition = partition
                    mine.append(outgoing)
                delivery.intake.replayed += 1
                backlog.give(number)
                self.out_bytes += delivery.size
        return len(found)

    def _room(
        self,
        partition: Partition[Outgoing],
        given: dict[Partition[Outgoing], list[Outgoing]],
        free: dict[Partition[Outgoing], list[Outgoing]],
    ) -> list[Outgoing] | None:
        """Where another message of it goes in ``given``; None: none may. ``free`` gets what nothing limits now."""
        if partition in self.passed_over:
            return None
        mine = given.setdefault(partition, [])
        if partition not in self.standing.stopped:
            free[partition] = mine
        elif self.standing.out.get(partition, 0) + len(mine) >= PROBE:
            return None
        return mine

    def _end_pass(self) -> None:
        """The end of the spool is reached: what was passed over in a whole pass is all that it holds."""
        standing = self.standing
        if self._whole:
            standing.unseen = False
            standing.behind = dict(self.passed_over)
        if standing.behind:
            self.begin()
        else:
            self._whole, self.passed_over = False, {}

    def begin(self) -> None:
        """Read from the first message that is not done."""
        self._left, self._held, self.again = [], None, False
        self.passed_over, self._whole = {}, True
        self._spool.rewind(self.backlog.first)
