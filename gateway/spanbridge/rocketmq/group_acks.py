"""Acknowledgements of a source of a consumer group: many in one request, tried again for as long as they can be."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable

from spanbridge.core.retry import Backoff
from spanbridge.ports import Acked, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.held import Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.receive_events import AckLate

_AT_ONCE = 4
"""Requests to one broker at once. What is acknowledged meanwhile goes into the next."""


class GroupAcks(ABC):
    """Gathers what is acknowledged in a turn of the loop, ``together`` messages to a request."""

    def __init__(
        self, options: ConsumerOptions, held: Held, reporter: Reporter, acked: Acked, *, together: int
    ) -> None:
        self._group = options.group
        self._topic = options.topic
        self._held = held
        self._reporter = reporter
        self._acked = acked
        self._together = together
        self._waiting: dict[str, deque[ReceivedMessage]] = {}
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}
        self._scheduled = False

    @abstractmethod
    async def _try(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """One request, or a few. Forgets what is acknowledged; what is to be tried again comes back."""

    def add(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """Acknowledge these: with all others that are added before the loop turns."""
        for delivery in deliveries:
            waiting = self._waiting.get(delivery.broker)
            if waiting is None:
                waiting = self._waiting[delivery.broker] = deque()
            waiting.append(delivery)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        for broker, waiting in self._waiting.items():
            tasks = self._under_way.setdefault(broker, set())
            while waiting and len(tasks) < _AT_ONCE:
                batch = [waiting.popleft() for _ in range(min(self._together, len(waiting)))]
                task = asyncio.get_running_loop().create_task(self._send(broker, batch))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: self._flush())

    async def _send(self, broker: str, batch: list[ReceivedMessage]) -> None:
        backoff = Backoff(0.1, 5.0)
        while batch:
            failed = batch
            with guarded("acknowledgements", self._reporter):
                failed = await self._try(broker, batch)
            if not failed:
                return
            await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter
            batch = self._still_ours(failed)

    def _still_ours(self, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        now = time.monotonic_ns()
        late = [delivery for delivery in batch if delivery.visible_ns <= now]
        if not late:
            return batch
        self.late(late)
        return [delivery for delivery in batch if delivery.visible_ns > now]

    def late(self, deliveries: list[ReceivedMessage]) -> None:
        """These can be acknowledged no more: they will come again."""
        for delivery in deliveries:
            self._held.forget(delivery)
        if deliveries:
            self._reporter.report(AckLate(group=self._group, topic=self._topic, count=len(deliveries)))

    def _tell(self, count: int, began: int, error: str | None) -> None:
        self._acked(self._topic, count, began, time.time_ns(), error)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Requests under way. Others may follow for what waits."""
        return set().union(*self._under_way.values())

    async def close(self) -> None:
        """End what is under way."""
        self._waiting.clear()
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
