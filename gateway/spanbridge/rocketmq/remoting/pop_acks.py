"""Acknowledgements of messages received by POP: many in one request."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.retry import Backoff
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.held import ReceivedMessage
from spanbridge.rocketmq.receive_events import AckLate, AckRetried
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.pop import ack, ack_batch, fits

_TOGETHER: Final = 256
"""Messages in one request."""
_AT_ONCE: Final = 4
"""Requests to one broker at once. What is acknowledged meanwhile goes into the next."""
_NO_BATCHES: Final = frozenset({"unimplemented", "forbidden"})
"""Why a broker does not take a batch, although it may take single messages."""
_UNKNOWN: Final = frozenset({"message_illegal", "invalid_receipt_handle"})
"""What a broker says of messages that it does not wait for any more."""


class PopAcks:
    """Sends acknowledgements, and tries those that failed again for as long as the messages are ours."""

    def __init__(self, parts: ConsumerParts) -> None:
        self._brokers = parts.brokers
        self._subscription = parts.subscription
        self._held = parts.held
        self._reporter = parts.reporter
        self._acked = parts.acked
        self._singly: set[str] = set()
        self._waiting: dict[str, deque[ReceivedMessage]] = {}
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}
        self._scheduled = False

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
                batch = [waiting.popleft() for _ in range(min(_TOGETHER, len(waiting)))]
                task = asyncio.get_running_loop().create_task(self._send(broker, batch))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: self._flush())

    async def _send(self, broker: str, batch: list[ReceivedMessage]) -> None:
        backoff = Backoff(0.1, 5.0)
        while batch := self._still_ours(batch):
            failed = batch
            with guarded("acknowledgements", self._reporter):
                failed = await self._try(broker, batch)
            if not failed:
                return
            await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter
            batch = failed

    async def _try(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """What is to be tried again comes back."""
        singly = broker in self._singly
        together = [] if singly else [one for one in batch if fits(one.handle)]
        apart = batch if singly else [one for one in batch if not fits(one.handle)]
        failed = await self._ask(broker, together) if together else []
        for one in apart:
            failed += await self._ask(broker, [one])
        return failed

    async def _ask(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        names = self._subscription.names
        began = time.time_ns()
        if len(batch) == 1:
            call = ack(names, batch[0].handle, broker)
        else:
            call = ack_batch(names, broker, (one.handle for one in batch))
        try:
            await self._brokers.ask(broker, call, f"acknowledging to group {self._subscription.group!r}")
        except SinkError as error:
            self._tell(len(batch), began, error.reason)
            return await self._refused(broker, batch, error)
        self._tell(len(batch), began, None)
        for delivery in batch:
            self._held.forget(delivery)
        return []

    async def _refused(self, broker: str, batch: list[ReceivedMessage], error: SinkError) -> list[ReceivedMessage]:
        if len(batch) > 1 and error.reason in _NO_BATCHES:
            self._singly.add(broker)
            return await self._try(broker, batch)
        if error.reason in _UNKNOWN:
            if len(batch) == 1:
                self.late(batch)
                return []
            middle = len(batch) // 2  # find the one that is meant: acknowledging the others again changes nothing
            return [*await self._ask(broker, batch[:middle]), *await self._ask(broker, batch[middle:])]
        self._reporter.report(AckRetried(reason=error.reason, cause=str(bare(error)), count=len(batch)))
        return batch

    def _tell(self, count: int, began: int, error: str | None) -> None:
        self._acked(self._subscription.topic, count, began, time.time_ns(), error)

    def _still_ours(self, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """Brokers take what comes too late and ignore it: they do not say so."""
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
            group, topic = self._subscription.group, self._subscription.topic
            self._reporter.report(AckLate(group=group, topic=topic, count=len(deliveries)))

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
