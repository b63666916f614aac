"""One reading: every group, topic and queue, from max and committed offsets."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

from spanbridge.core.errors import OffsetsError
from spanbridge.lag.age import stored_at
from spanbridge.lag.asking import Asking
from spanbridge.lag.options import LagOptions, WatchedGroup
from spanbridge.lag.reading import LagReading, LagState, Meaning, QueueLag, TopicLag
from spanbridge.ports import Clock, Offsets, TopicQueue

_MS: Final = 1_000_000
RETRY: Final = "%RETRY%"
DEAD: Final = "%DLQ%"


class LagReader:
    """Reads when asked to. It keeps when messages were stored, so that an age is searched for once and then counted."""

    def __init__(self, offsets: Offsets, options: LagOptions, clock: Clock) -> None:
        self._offsets = offsets
        self._options = options
        self._clock = clock
        self._stored: dict[tuple[str, TopicQueue], tuple[int, int]] = {}

    async def read(self) -> LagReading:
        """Ask for everything once. What cannot be read is in the result as such. Never raises ``OffsetsError``."""
        began, at_ns, before = self._clock.monotonic_ns(), self._clock.now_ns(), self._offsets.requests
        asking = Asking(self._offsets, self._options.max_requests)
        try:
            rows, dead = await self._read_all(asking, at_ns // _MS)
        finally:
            await asking.close()
        kept = {(row.group, queue.queue) for row in rows for queue in row.queues}
        self._stored = {key: value for key, value in self._stored.items() if key in kept}
        return LagReading(
            at_ns=at_ns,
            took=(self._clock.monotonic_ns() - began) / 1e9,
            requests=self._offsets.requests - before,
            rows=tuple(rows),
            dead_letters=dead,
            errors=tuple(asking.errors.items()),
        )

    async def _read_all(self, asking: Asking, now_ms: int) -> tuple[list[TopicLag], dict[str, int]]:
        watched = await self._watched(asking)
        pairs = [(group, topic) for group in watched for topic in group.topics]
        rows = await asyncio.gather(*(self._topic(asking, group, topic) for group, topic in pairs))
        retries: list[TopicLag] = []
        dead: dict[str, int] = {}
        if self._options.retries:
            retries = [row for group in watched for row in await self._retries(asking, group)]
            held = [(group.name, await _held(asking, DEAD + group.name)) for group in watched]
            dead = {group: count for group, count in held if count is not None}
        # Ages last: where requests run out, the numbers are there.
        return await asyncio.gather(*(self._with_ages(asking, row, now_ms) for row in (*rows, *retries))), dead

    async def _watched(self, asking: Asking) -> Sequence[WatchedGroup]:
        given = {group.name for group in self._options.groups}
        topics: dict[str, list[str]] = {}
        for topic in self._options.topics:
            try:
                for group in await asking.groups(topic):
                    if group not in given:
                        topics.setdefault(group, []).append(topic)
            except OffsetsError:  # it is among the errors of the reading
                continue
        found = [WatchedGroup(group, tuple(names)) for group, names in sorted(topics.items())]
        return [*self._options.groups, *found]

    async def _topic(self, asking: Asking, group: WatchedGroup, topic: str, *, retry: bool = False) -> TopicLag:
        means = Meaning.NOT_ACKNOWLEDGED if not group.pops else Meaning.UNKNOWN
        try:
            found = await asking.queues(topic)
            if not found:
                return TopicLag(group=group.name, topic=topic, state=LagState.NO_TOPIC, means=means, retry=retry)
            queues = await asyncio.gather(*(self._queue(asking, group.name, queue) for queue in found))
        except OffsetsError as error:
            state = LagState.UNREADABLE
            return TopicLag(group=group.name, topic=topic, state=state, means=means, retry=retry, error=str(error))
        brokers = list(dict.fromkeys(queue.broker for queue in found))
        configured = [await asking.ordered(broker) for broker in brokers]
        counts = [await asking.members(group.name, broker) for broker in brokers]
        members = max((count for count in counts if count is not None), default=None)  # each consumer is at all brokers
        known = [each[group.name] for each in configured if each is not None and group.name in each]
        ordered = group.ordered if group.ordered is not None else any(known) if known else None
        if group.pops and ordered is not None:
            means = Meaning.NOT_ACKNOWLEDGED if ordered else Meaning.NOT_DELIVERED
        missing = not known and all(each is not None for each in configured)
        return TopicLag(
            group=group.name,
            topic=topic,
            state=_state(queues, members, missing=missing),
            means=means,
            members=members,
            queues=tuple(queues),
            retry=retry,
        )

    async def _queue(self, asking: Asking, group: str, queue: TopicQueue) -> QueueLag:
        committed, most = await asyncio.gather(asking.committed(group, queue), asking.max_offset(queue))
        behind = most > (committed or 0)
        return QueueLag(queue, most, committed, await asking.min_offset(queue) if behind else None)

    async def _retries(self, asking: Asking, group: WatchedGroup) -> list[TopicLag]:
        """The retry topics that exist: one for the group, and for POP one for each of its topics, in two spellings."""
        names = [RETRY + group.name]
        if group.pops:
            names = [f"{RETRY}{group.name}{mark}{topic}" for topic in group.topics for mark in "_+"]
        rows = [await self._topic(asking, group, name, retry=True) for name in names]
        return [row for row in rows if row.lag is not None]

    async def _with_ages(self, asking: Asking, row: TopicLag, now_ms: int) -> TopicLag:
        if not row.lag:
            return row
        queues = await asyncio.gather(*(self._with_age(asking, row.group, queue, now_ms) for queue in row.queues))
        return dataclasses.replace(row, queues=tuple(queues))

    async def _with_age(self, asking: Asking, group: str, lag: QueueLag, now_ms: int) -> QueueLag:
        key, first = (group, lag.queue), lag.first
        if first is None or not lag.lag:
            return lag
        offset, stored = self._stored.get(key, (-1, 0))
        if offset != first:
            # Offsets and times grow together: what is stored after the former first message is not older than it.
            not_before = stored if offset < first else 0
            try:
                found = await stored_at(lambda moment: asking.offset_at(lag.queue, moment), first, now_ms, not_before)
            except OffsetsError:
                return lag
            if found is None:
                return lag
            stored = found
            self._stored[key] = (first, stored)
        return dataclasses.replace(lag, age=max(0.0, (now_ms - stored) / 1000))


def _state(queues: Iterable[QueueLag], members: int | None, *, missing: bool) -> LagState:
    if all(queue.committed is None for queue in queues):
        return LagState.NO_GROUP if missing else LagState.NEVER_COMMITTED
    return LagState.NO_CONSUMER if members == 0 else LagState.CONSUMED


async def _held(asking: Asking, topic: str) -> int | None:
    """The messages that a topic holds; 0 where there is no such topic, None where nobody says."""
    try:
        queues = await asking.queues(topic)
        offsets = [(await asking.max_offset(queue), await asking.min_offset(queue)) for queue in queues]
    except OffsetsError:
        return None
    return sum(most - least for most, least in offsets)
