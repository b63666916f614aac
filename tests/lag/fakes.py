"""A cluster that holds what a test says, and counts what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spanbridge.core.errors import OffsetsError
from spanbridge.core.events import Event
from spanbridge.ports import TopicQueue


@dataclass
class FakeQueue:
    """``stored`` are the store times of its messages in milliseconds; ``deleted`` of the oldest are gone."""

    stored: list[int] = field(default_factory=list)
    deleted: int = 0


class FakeOffsets:
    """Brokers' answers as RocketMQ 5.5.0 gives them."""

    def __init__(self) -> None:
        self.requests = 0
        self.asked: list[str] = []
        self.held: dict[TopicQueue, FakeQueue] = {}
        self.commits: dict[tuple[str, TopicQueue], int] = {}
        self.configured: dict[str, bool] = {}
        self.online: dict[str, int] = {}
        self.failing: dict[str, OffsetsError] = {}
        self.closed = False

    def add(self, topic: str, *stored: int, broker: str = "broker-a", queue: int = 0, deleted: int = 0) -> TopicQueue:
        place = TopicQueue(topic, broker, queue)
        self.held[place] = FakeQueue(list(stored), deleted)
        return place

    async def _answer(self, what: str) -> None:
        self.requests += 1
        self.asked.append(what)
        await asyncio.sleep(0)
        if what in self.failing:
            raise OffsetsError(str(self.failing[what]), reason=self.failing[what].reason)

    async def queues(self, topic: str) -> Sequence[TopicQueue]:
        await self._answer("queues")
        return sorted(queue for queue in self.held if queue.topic == topic)

    async def max_offset(self, queue: TopicQueue) -> int:
        await self._answer("max")
        return len(self.held[queue].stored)

    async def min_offset(self, queue: TopicQueue) -> int:
        await self._answer("min")
        return self.held[queue].deleted

    async def offset_at(self, queue: TopicQueue, milliseconds: int) -> int:
        await self._answer("at")
        found = self.held[queue]
        later = [at for at, stored in enumerate(found.stored) if at >= found.deleted and stored >= milliseconds]
        return later[0] if later else len(found.stored)

    async def committed(self, group: str, queue: TopicQueue) -> int | None:
        await self._answer("committed")
        return self.commits.get((group, queue))

    async def members(self, group: str, broker: str) -> int | None:
        await self._answer("members")
        return self.online.get(group, 0)

    async def ordered(self, broker: str) -> Mapping[str, bool]:
        await self._answer("ordered")
        return self.configured

    async def groups(self, topic: str) -> Sequence[str]:
        await self._answer("groups")
        return sorted({group for group, queue in self.commits if queue.topic == topic})

    async def close(self) -> None:
        self.closed = True


class StillClock:
    """Unix time and monotonic time that move when told; sleeps last until then."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.ms = now_ms
        self.woken = asyncio.Event()

    def now_ns(self) -> int:
        return self.ms * 1_000_000

    def monotonic_ns(self) -> int:
        return self.ms * 1_000_000

    async def sleep(self, seconds: float) -> None:
        await self.woken.wait()
        self.woken.clear()


class Told:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)
