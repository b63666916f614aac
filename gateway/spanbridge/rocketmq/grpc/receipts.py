"""Receipt handles: kept while a message is in our hands, and given up in the way its holder asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from spanbridge.core.errors import SinkError, bare
from spanbridge.ports import Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.grpc.acks import Acks
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.stubs import service
from spanbridge.rocketmq.grpc.subscription import GroupSubscription
from spanbridge.rocketmq.held import DeliveryAnswer, Held, ReceivedMessage
from spanbridge.rocketmq.receive_events import DeadLetterFailed, HoldLost, NackFailed, RenewalFailed

_AT_ONCE = 32
"""Requests under way at once; each is for one message."""
_LOOK = 1.0
"""Seconds between looks at what is to be renewed."""
_SHORTEST = 0.001
"""Seconds of invisible time of what is given back."""
_INVALID = "invalid_receipt_handle"


class Receipts:
    """Renews handles at half of their invisible time, and carries out nacks and rejections."""

    def __init__(
        self,
        *,
        brokers: Brokers,
        subscription: GroupSubscription,
        held: Held,
        acks: Acks,
        reporter: Reporter,
        invisible: float,
    ) -> None:
        self._brokers = brokers
        self._subscription = subscription
        self._held = held
        self._acks = acks
        self._reporter = reporter
        self._invisible = invisible
        self.leaving = False
        """Whether what is nacked is to come again at once: we are about to go."""
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Renew until cancelled."""
        lead = int(self._invisible * 500_000_000)
        while True:
            await asyncio.sleep(min(_LOOK, self._invisible / 10))
            for delivery in self._held.ending(time.monotonic_ns() + lead):
                delivery.changing = True
                self._start(self._renew, delivery)

    async def _renew(self, delivery: ReceivedMessage) -> None:
        handle = delivery.handle
        try:
            async with self._gate:
                if delivery.answer is DeliveryAnswer.NONE:
                    await self._change(delivery, self._invisible)
        except SinkError as error:
            if error.reason == _INVALID and delivery.handle == handle:
                delivery.lost = True
                self._reporter.report(HoldLost(group=self._group, topic=self._topic))
            else:
                self._reporter.report(RenewalFailed(reason=error.reason, cause=str(bare(error))))
        finally:
            delivery.changing = False
            if delivery.answer is not DeliveryAnswer.NONE:  # it was answered meanwhile
                self.conclude((delivery,))

    async def _change(self, delivery: ReceivedMessage, invisible: float) -> None:
        """Let a message be invisible for so many seconds from now, and take over its new handle.

        :raises SinkError: the proxy did not do it, or did not say so.
        """
        handle = delivery.handle
        request = service.ChangeInvisibleDurationRequest(
            group=self._subscription.group,
            topic=self._subscription.topic,
            receipt_handle=handle,
            message_id=delivery.message.message_id,
        )
        request.invisible_duration.FromMilliseconds(int(invisible * 1000))
        began = time.monotonic_ns()
        what = f"invisible time for group {self._group!r}"
        response_type = service.ChangeInvisibleDurationResponse
        response = await self._brokers.ask(delivery.broker, "ChangeInvisibleDuration", request, response_type, what)
        if delivery.handle == handle:  # otherwise the message came again meanwhile, with a handle that is newer
            delivery.handle = response.receipt_handle or handle
            self._held.keep(delivery, began + int(invisible * 1e9))

    # -- answers ----------------------------------------------------------------------------------------------------

    def conclude(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """Carry out the answers to these. Those whose handle is being replaced come here again once it is."""
        acks = []
        for delivery in deliveries:
            if delivery.changing:
                continue
            if delivery.answer is DeliveryAnswer.ACK and not delivery.lost:
                acks.append(delivery)
            elif delivery.lost:
                if delivery.answer is DeliveryAnswer.ACK:
                    self._acks.late([delivery])
                self._held.forget(delivery)  # it comes again anyway
            else:
                delivery.changing = True
                self._start(self._reject if delivery.answer is DeliveryAnswer.REJECT else self._nack, delivery)
        if acks:
            self._acks.add(acks)

    async def _nack(self, delivery: ReceivedMessage) -> None:
        pause = _SHORTEST if self.leaving else self._subscription.pause(delivery.message.attempt)
        await self._return(delivery, pause)

    async def _return(self, delivery: ReceivedMessage, pause: float) -> None:
        """Have a message come again after a pause. Where that cannot be told it comes when its invisible time ends."""
        try:
            async with self._gate:
                await self._change(delivery, pause)
        except SinkError as error:
            if error.reason != _INVALID:
                self._reporter.report(NackFailed(reason=error.reason, cause=str(bare(error))))
        finally:
            self._held.forget(delivery)

    async def _reject(self, delivery: ReceivedMessage) -> None:
        request = service.ForwardMessageToDeadLetterQueueRequest(
            group=self._subscription.group,
            topic=self._subscription.topic,
            receipt_handle=delivery.handle,
            message_id=delivery.message.message_id,
            delivery_attempt=delivery.message.attempt,
            max_delivery_attempts=self._subscription.max_attempts,
        )
        response_type: Any = service.ForwardMessageToDeadLetterQueueResponse
        what = f"dead letter of group {self._group!r}"
        try:
            async with self._gate:
                await self._brokers.ask(
                    delivery.broker, "ForwardMessageToDeadLetterQueue", request, response_type, what
                )
        except SinkError as error:
            self._reporter.report(DeadLetterFailed(reason=error.reason, cause=str(bare(error))))
            await self._nack(delivery)
        else:
            # A FIFO group's queue stays locked by what is in the dead letters, until that is acknowledged too.
            self._acks.add((delivery,))

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Requests under way."""
        return set(self._tasks)

    @property
    def _group(self) -> str:
        name: str = self._subscription.group.name
        return name

    @property
    def _topic(self) -> str:
        name: str = self._subscription.topic.name
        return name

    def _start(
        self, work: Callable[[ReceivedMessage], Awaitable[None]], delivery: ReceivedMessage
    ) -> asyncio.Task[None]:
        async def run() -> None:
            with guarded("receipt handles", self._reporter):
                await work(delivery)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End what is under way."""
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
