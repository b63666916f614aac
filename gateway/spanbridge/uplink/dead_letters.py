"""Dead letters on this machine's disk: messages that can never be forwarded, in a store of their own beside the spool.

A dead letter is acknowledged once the disk has it. Where there is no room, the oldest make some. What the disk does not
take is dropped and counted, as it would be without a place for dead letters: it holds up nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spanbridge.core import spooled as form
from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SpanbridgeError, bare
from spanbridge.core.message import Publish
from spanbridge.core.spooled import HERE, Record, Spooled, SpooledError, TraceIds
from spanbridge.ports import Clock, Reporter, Spool
from spanbridge.telemetry import MessageMetrics, MessageTrace
from spanbridge.telemetry.quiet import quietly, report_fault
from spanbridge.uplink import events
from spanbridge.uplink.tally import Tally

_BATCH = 1024
_BATCH_BYTES = 1 << 20
_PERIOD = 60.0
"""Seconds between two looks for dead letters that are too old."""
_LARGEST = 4
"""A dead letter may take this part of the whole: one must not push out all others."""
_OVERHEAD = 64


class Kept(NamedTuple):
    """A message that the disk is about to have. It is acknowledged then."""


KEPT = Kept()


@dataclass(slots=True, eq=False)
class DeadLetter:
    """A message on its way to the disk."""

    delivery: Delivery[Publish]
    tally: Tally
    reason: str
    cause: str
    body: bytes


class DeadLetters:
    """Keeps, removes and gives back dead letters. ``dropped`` counts what cannot be kept, as
    :meth:`.rejects.Rejects.dropped` does; ``released`` is called after messages left the gateway's care.

    ``max_age`` is in seconds since the rejection. ``boot_ns`` is a clock that counts from the machine's start.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        dropped: Callable[[Publish, Tally, str, str], None],
        released: Callable[[], None],
        metrics: MessageMetrics,
        reporter: Reporter,
        clock: Clock,
        max_age: float,
        boot_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self.spool = spool
        self.max_age = max_age
        self.oldest_ns: int | None = None
        """When the oldest was rejected (Unix time), as of the last look; None while there is none."""
        self._dropped = dropped
        self._released = released
        self._metrics = metrics
        self._reporter = reporter
        self._clock = clock
        self._boot_ns = boot_ns
        self._queue: list[DeadLetter] = []
        self._writing: list[DeadLetter] = []
        self._reading = asyncio.Lock()
        self._handed: tuple[tuple[str, ...], int] = ((), 0)
        """Reasons, and the number before which dead letters rejected for them were handed over."""
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for those that are too old. The store is open."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="dead letters")

    async def stop(self) -> None:
        """Remove none any more; what is under way to the disk is finished by the store. Idempotent."""
        tasks = [task for task in (self._task, self._room) if task is not None]
        self._task = self._room = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def waiting(self) -> list[Delivery[Publish]]:
        """Deliveries whose dead letters wait for the disk."""
        return [letter.delivery for letter in self._writing + self._queue]

    def keep(
        self, delivery: Delivery[Publish], tally: Tally, reason: str, cause: str, trace: MessageTrace | None
    ) -> Kept | None:
        """Put a message on the disk; None: it is too large, was dropped, and is to be acked."""
        ends = tally.intake.ends
        spooled = Spooled(
            delivery.message,
            self._clock.now_ns(),
            _ids(trace),
            ends.source if ends.told else "",
            self._boot_ns(),
            reason=reason,
            error=cause,
        )
        body = form.encode(spooled)
        if len(body) > self.spool.limit // _LARGEST:
            cause = f"{cause}; it takes {len(body)} bytes, more than a quarter of what dead letters may take"
            self._dropped(delivery.message, tally, reason, cause)
            return None
        self._queue.append(DeadLetter(delivery, tally, reason, cause, body))
        self._write()
        return KEPT

    def _write(self) -> None:
        """Hand the next batch to the disk: what gathers meanwhile is the next one."""
        if self._writing or self._room is not None or not self._queue:
            return
        count = size = 0
        for letter in self._queue:
            if count >= _BATCH or size >= _BATCH_BYTES:
                break
            count, size = count + 1, size + len(letter.body)
        self._writing, self._queue = self._queue[:count], self._queue[count:]
        self.spool.append([(form.DEAD_LETTER, letter.body) for letter in self._writing], self._written)

    def _written(self, first: int, error: SpanbridgeError | None) -> None:
        letters, self._writing = self._writing, []
        size = sum(len(letter.body) + _OVERHEAD for letter in letters)
        if error is not None and error.reason == "full" and size > self.spool.limit - self.spool.size:
            self._queue[:0] = letters
            if self._room is None:
                self._room = asyncio.get_running_loop().create_task(self._make_room(), name="dead letters' room")
            return
        for letter in letters:
            if error is None:
                letter.tally.rejected[letter.reason] += 1
                quietly(self._reporter, self._metrics.rejected, letter.tally.filter, letter.reason, HERE)
            else:
                cause = f"{letter.cause}; nor is it kept here: {error}"
                self._dropped(letter.delivery.message, letter.tally, letter.reason, cause)
            letter.tally.intake.acked([letter.delivery], 0)
        self._released()
        self._write()

    async def _make_room(self) -> None:
        """Remove the oldest file. Where there is none to remove, what waits is dropped."""
        gone: range = range(0)
        try:
            gone = await self.spool.drop_oldest(_nobody_asks)
        finally:
            self._room = None
        if gone:
            self._removed("full", len(gone))
            self._write()
            return
        letters, self._queue = self._queue, []
        for letter in letters:
            self._dropped(letter.delivery.message, letter.tally, letter.reason, f"{letter.cause}; nor is there room")
            letter.tally.intake.acked([letter.delivery], 0)
        self._released()

    def _removed(self, reason: str, count: int) -> None:
        self._reporter.report(events.DeadLettersRemoved(reason=reason, count=count))

    # Those that are there

    async def _watch(self) -> None:
        while True:
            try:
                await self.expire()
            except SpanbridgeError as error:
                self._reporter.report(events.SpoolUnreadable(cause=str(error)))
            except Exception as fault:  # noqa: BLE001 - the next look may work
                report_fault(self._reporter, bare(fault), "uplink.dead_letters")
            await self._clock.sleep(_PERIOD)

    async def expire(self) -> None:
        """Remove those that were rejected too long ago.

        :raises SpanbridgeError: the disk fails.
        """
        async with self._reading:
            first = done = self.spool.first
            self.spool.rewind(first)
            oldest: int | None = None
            while oldest is None and (found := await self.spool.read(_BATCH, _BATCH_BYTES)):
                for one in found:
                    spooled = _decoded(one) if isinstance(one, Record) else None
                    if spooled is not None and not self._is_too_old(
                        one[0], spooled
                    ):  # either kind begins with its number
                        oldest = spooled.spooled_ns
                        break
                    done = one.number + 1 if isinstance(one, Record) else one.end
            self.oldest_ns = oldest
            if done > first:
                self.spool.mark(done)
                self._removed("max_age", done - first)

    def _is_too_old(self, number: int, spooled: Spooled) -> bool:
        boot = self.spool.boot
        same_boot = bool(boot) and self.spool.boot_of(number) == boot
        now, boot_now = self._clock.now_ns(), self._boot_ns()
        age = form.age_ns(spooled, spooled.spooled_ns, now_ns=now, boot_now_ns=boot_now, same_boot=same_boot)
        return age > self.max_age * 1e9

    async def give_back(
        self, reasons: Sequence[str], put: Callable[[Sequence[Spooled]], Awaitable[None]]
    ) -> tuple[int, int]:
        """Hand those that were rejected for one of ``reasons``, or all of them, to ``put``, and remove them.

        Those that stay go behind what comes in meanwhile. How many were handed over, and how many stayed. After a
        failure some may be there although they were handed over: with the same reasons they are not the next time.

        :raises SpanbridgeError: the disk fails, or ``put`` did.
        """
        given = stayed = 0
        async with self._reading:
            end = self.spool.end
            self.spool.rewind(self.spool.first)
            while found := await self.spool.read(_BATCH, _BATCH_BYTES):
                ours = [one for one in found if (one.number if isinstance(one, Record) else one.first) < end]
                letters = [(one, _decoded(one)) for one in ours if isinstance(one, Record)]
                handed = self._handed[1] if self._handed[0] == tuple(reasons) else 0
                wanted = [
                    known
                    for one, known in letters
                    if known is not None and _is_wanted(known, reasons) and one.number >= handed
                ]
                rest = [one.body for one, known in letters if known is not None and not _is_wanted(known, reasons)]
                if wanted:
                    await put(wanted)
                    self._handed = tuple(reasons), letters[-1][0].number + 1
                if rest:
                    await append(self.spool, form.DEAD_LETTER, rest)
                given, stayed = given + len(wanted), stayed + len(rest)
                if ours:
                    last = ours[-1]
                    self.spool.mark(min(end, last.number + 1 if isinstance(last, Record) else last.end), tidy=not rest)
                if len(ours) < len(found):
                    break
        return given, stayed

    async def remove_all(self) -> int:
        """Remove those that are there; return how many they were."""
        async with self._reading:
            first, end = self.spool.first, self.spool.end
            self.spool.mark(end, tidy=True)
        self.oldest_ns = None
        return end - first


async def append(spool: Spool, kind: int, bodies: Sequence[bytes]) -> None:
    """Put records into a spool, and wait until they are on the disk.

    :raises SpanbridgeError: there is no room, or the disk fails; none of them counts then.
    """
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def written(_: int, error: SpanbridgeError | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    spool.append([(kind, body) for body in bodies], written)
    await answer


def _is_wanted(spooled: Spooled, reasons: Sequence[str]) -> bool:
    return not reasons or spooled.reason in reasons


def _decoded(record: Record) -> Spooled | None:
    try:
        return form.decode(record.body)
    except SpooledError:
        return None


def _ids(trace: MessageTrace | None) -> TraceIds | None:
    """The ids that the message goes on with. The id of a send span that is told already is not used again."""
    if trace is None:
        return None
    return TraceIds(trace.trace_id, trace.process_id, os.urandom(8) if trace.tried else trace.send_id)


def _nobody_asks(_: Record) -> None: ...
