"""What one reading asks: each question once, no more of them than allowed, and none of a broker that did not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar, cast

from spanbridge.core.errors import OffsetsError
from spanbridge.ports import Offsets, TopicQueue

T = TypeVar("T")

_OF_BROKERS = frozenset({"timeout", "unavailable", "no_master", "address"})
"""Reasons that the other questions to a broker would fail for as well."""


class Asking:
    """Answers of one reading. Questions that are the same are asked once, also when they are asked side by side."""

    def __init__(self, offsets: Offsets, most: int) -> None:
        """``most`` is the number of questions that may be asked."""
        self.errors: dict[str, str] = {}
        self.asked = 0
        self._offsets = offsets
        self._most = most
        self._answers: dict[Hashable, asyncio.Task[Any]] = {}
        self._away: dict[str, OffsetsError] = {}

    async def queues(self, topic: str) -> Sequence[TopicQueue]:
        """The topic's queues.

        :raises OffsetsError: nobody says, here and below.
        """
        return await self._once(("queues", topic), lambda: self._offsets.queues(topic), "")

    async def max_offset(self, queue: TopicQueue) -> int:
        """As the port says."""
        return await self._once(("max", queue), lambda: self._offsets.max_offset(queue), queue.broker)

    async def min_offset(self, queue: TopicQueue) -> int:
        """As the port says."""
        return await self._once(("min", queue), lambda: self._offsets.min_offset(queue), queue.broker)

    async def offset_at(self, queue: TopicQueue, milliseconds: int) -> int:
        """As the port says."""
        key = ("at", queue, milliseconds)
        return await self._once(key, lambda: self._offsets.offset_at(queue, milliseconds), queue.broker)

    async def committed(self, group: str, queue: TopicQueue) -> int | None:
        """As the port says."""
        key = ("committed", group, queue)
        return await self._once(key, lambda: self._offsets.committed(group, queue), queue.broker)

    async def members(self, group: str, broker: str) -> int | None:
        """As the port says; None where that is refused, since rights may not go so far."""
        try:
            key = ("members", group, broker)
            return await self._once(key, lambda: self._offsets.members(group, broker), broker, optional=True)
        except OffsetsError:
            return None

    async def ordered(self, broker: str) -> Mapping[str, bool] | None:
        """As the port says; None where that is refused."""
        try:
            key = ("ordered", broker)
            return await self._once(key, lambda: self._offsets.ordered(broker), broker, optional=True)
        except OffsetsError:
            return None

    async def groups(self, topic: str) -> Sequence[str]:
        """As the port says."""
        return await self._once(("groups", topic), lambda: self._offsets.groups(topic), "")

    async def close(self) -> None:
        """End what nobody waits for any more."""
        tasks = list(self._answers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _once(self, key: Hashable, ask: Callable[[], Awaitable[T]], broker: str, *, optional: bool = False) -> T:
        task = self._answers.get(key)
        if task is None:
            task = self._answers[key] = asyncio.create_task(self._ask(ask, broker, optional=optional))
        answer = await asyncio.shield(task)
        if isinstance(answer, OffsetsError):
            raise OffsetsError(str(answer), reason=answer.reason)
        return cast(T, answer)

    async def _ask(self, ask: Callable[[], Awaitable[T]], broker: str, *, optional: bool) -> T | OffsetsError:
        """The answer, or why there is none: an exception that nobody waits for any more would be logged."""
        if broker in self._away:
            return self._away[broker]
        if self.asked >= self._most:
            return self._failed(OffsetsError(f"one reading may make {self._most} requests", reason="max_requests"))
        self.asked += 1
        try:
            return await ask()
        except OffsetsError as error:
            if broker and error.reason in _OF_BROKERS:
                self._away.setdefault(broker, error)
            elif optional:
                return error
            return self._failed(error)

    def _failed(self, error: OffsetsError) -> OffsetsError:
        self.errors.setdefault(str(error), error.reason)
        return error
