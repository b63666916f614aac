"""Acknowledgements: many in one request, and the result of each looked at."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.protobuf import length
from spanbridge.core.retry import Backoff
from spanbridge.ports import Acked, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.grpc.answers import OK, judge_code
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.grpc.subscription import GroupSubscription
from spanbridge.rocketmq.held import Held, ReceivedMessage
from spanbridge.rocketmq.receive_events import AckLate, AckRetried

_TOGETHER = 128
"""Messages in one request, of which each takes about 300 bytes: more than 65 535 would have to wait for the proxy to
allow more. It acknowledges them one by one inside."""
_AT_ONCE = 4
"""Requests to one broker at once. What is acknowledged meanwhile goes into the next."""

INVALID_HANDLE: int = definition.Code.INVALID_RECEIPT_HANDLE


def entry(delivery: ReceivedMessage) -> bytes:
    """One of the ``entries`` of an ``AckMessageRequest`` (service.proto). Hot path."""
    identity, handle = delivery.message.message_id.encode(), delivery.handle.encode()
    parts = (b"\x0a", length(len(identity)), identity, b"\x12", length(len(handle)), handle)
    return b"".join((b"\x1a", length(sum(map(len, parts))), *parts))


class Acks:
    """Sends acknowledgements, and tries those that failed again for as long as their handles hold."""

    def __init__(
        self, brokers: Brokers, subscription: GroupSubscription, held: Held, reporter: Reporter, acked: Acked
    ) -> None:
        self._brokers = brokers
        self._subscription = subscription
        self._held = held
        self._reporter = reporter
        self._acked = acked
        self._waiting: dict[str, deque[ReceivedMessage]] = {}
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}
        self._scheduled = False
        head = service.AckMessageRequest(group=subscription.group, topic=subscription.topic)
        self._head: bytes = head.SerializeToString()

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
        while batch:
            failed = batch
            with guarded("acknowledgements", self._reporter):
                failed = await self._try(broker, batch)
            if not failed:
                return
            await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter
            batch = self._still_ours(failed)

    async def _try(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """One request. What is to be tried again comes back."""
        request = self._head + b"".join([entry(delivery) for delivery in batch])
        began = time.time_ns()
        what = f"acknowledging to group {self._subscription.group.name!r}"
        try:
            response = await self._brokers.ask_encoded(broker, "AckMessage", request, service.AckMessageResponse, what)
        except SinkError as error:
            self._tell(len(batch), began, error.reason)
            if error.reason == "invalid_receipt_handle":
                return await self._halve(broker, batch)
            self._reporter.report(AckRetried(reason=error.reason, cause=str(bare(error)), count=len(batch)))
            return batch
        self._tell(len(batch), began, None)
        return self._sort(batch, response)

    def _tell(self, count: int, began: int, error: str | None) -> None:
        self._acked(self._subscription.topic.name, count, began, time.time_ns(), error)

    async def _halve(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """A handle that does not even parse is the whole request's fault: find the one that is meant."""
        if len(batch) == 1:
            self.late(batch)
            return []
        middle = len(batch) // 2
        return [*await self._try(broker, batch[:middle]), *await self._try(broker, batch[middle:])]

    def _sort(self, batch: list[ReceivedMessage], response: Any) -> list[ReceivedMessage]:
        """Look at each result; what is to be tried again comes back."""
        if response.status.code == OK and all(entry.status.code == OK for entry in response.entries):
            for delivery in batch:
                self._held.forget(delivery)
            return []
        codes = {entry.receipt_handle: entry.status.code for entry in response.entries}
        late, failed = [], []
        for delivery in batch:
            code = codes.get(delivery.handle, response.status.code)
            if code == OK:
                self._held.forget(delivery)
            elif code == INVALID_HANDLE:
                late.append(delivery)
            else:
                failed.append((delivery, code))
        self.late(late)
        if failed:
            reason = judge_code(failed[0][1], "").reason
            cause = f"RocketMQ did not take acknowledgements of group {self._subscription.group.name!r}: {reason}."
            self._reporter.report(AckRetried(reason=reason, cause=cause, count=len(failed)))
        return [delivery for delivery, _ in failed]

    def _still_ours(self, failed: list[ReceivedMessage]) -> list[ReceivedMessage]:
        now = time.monotonic_ns()
        self.late([delivery for delivery in failed if delivery.visible_ns <= now])
        return [delivery for delivery in failed if delivery.visible_ns > now]

    def late(self, deliveries: list[ReceivedMessage]) -> None:
        """These can be acknowledged no more: they will come again."""
        for delivery in deliveries:
            self._held.forget(delivery)
        if deliveries:
            group, topic = self._subscription.group.name, self._subscription.topic.name
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
