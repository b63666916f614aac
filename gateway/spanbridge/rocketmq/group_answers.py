"""Messages in the hands of a source of a consumer group: kept from others meanwhile, then answered.

What RocketMQ hands out stays invisible to others for a time, and comes again after it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable

from spanbridge.core.errors import SinkError, bare
from spanbridge.ports import Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.group_acks import GroupAcks
from spanbridge.rocketmq.held import DeliveryAnswer, Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.receive_events import DeadLetterFailed, HoldLost, NackFailed, RenewalFailed

_AT_ONCE = 32
"""Requests under way at once; each is for one message."""
_LOOK = 1.0
"""Seconds between looks at what is to be renewed."""
_SHORTEST = 0.001
"""Seconds of invisible time of what is given back."""
_INVALID = "invalid_receipt_handle"


class GroupAnswers(ABC):
    """Renews messages at half of their invisible time, and carries out acks, nacks and rejections."""

    def __init__(self, options: ConsumerOptions, held: Held, acks: GroupAcks, reporter: Reporter) -> None:
        self._group = options.group
        self._topic = options.topic
        self._held = held
        self._acks = acks
        self._reporter = reporter
        self._invisible = options.invisible
        self.leaving = False
        """Whether what is nacked is to come again at once: we are about to go."""
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _change(self, delivery: ReceivedMessage, invisible: float) -> None:
        """Let a message be invisible for so many seconds from now, and take over its new handle.

        :raises SinkError: RocketMQ did not do it, or did not say so.
        """

    @abstractmethod
    async def _to_dead_letters(self, delivery: ReceivedMessage) -> None:
        """Move a message to the group's dead letters.

        :raises SinkError: RocketMQ did not do it, or did not say so.
        """

    @abstractmethod
    def _pause(self, attempt: int) -> float:
        """Seconds after which a message comes again that was nacked at its ``attempt``."""

    # -- renewal ----------------------------------------------------------------------------------------------------

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
                self._lose(delivery)
            else:
                self._reporter.report(RenewalFailed(reason=error.reason, cause=str(bare(error))))
        finally:
            delivery.changing = False
            if delivery.answer is not DeliveryAnswer.NONE:  # it was answered meanwhile
                self.conclude((delivery,))

    def _lose(self, delivery: ReceivedMessage) -> None:
        delivery.lost = True
        self._reporter.report(HoldLost(group=self._group, topic=self._topic))

    # -- answers ----------------------------------------------------------------------------------------------------

    def conclude(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """Carry out the answers to these. Those that are being renewed come here again once they are."""
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
        """Have a message come again after a pause. Where that cannot be told it comes when its invisible time ends."""
        pause = _SHORTEST if self.leaving else self._pause(delivery.message.attempt)
        try:
            async with self._gate:
                await self._change(delivery, pause)
        except SinkError as error:
            if error.reason != _INVALID:
                self._reporter.report(NackFailed(reason=error.reason, cause=str(bare(error))))
        finally:
            self._held.forget(delivery)

    async def _reject(self, delivery: ReceivedMessage) -> None:
        try:
            async with self._gate:
                await self._to_dead_letters(delivery)
        except SinkError as error:
            self._reporter.report(DeadLetterFailed(reason=error.reason, cause=str(bare(error))))
            await self._nack(delivery)
        except Exception:  # a fault of ours: held for ever, its redeliveries would be taken for it
            await self._nack(delivery)
            raise
        else:
            # What is in the dead letters still locks the queue of a group in order, until it is acknowledged too.
            self._acks.add((delivery,))

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Requests under way."""
        return self._tasks | self._acks.tasks

    def _start(self, work: Callable[[ReceivedMessage], Awaitable[None]], delivery: ReceivedMessage) -> None:
        async def run() -> None:
            with guarded("answers to messages", self._reporter):
                await work(delivery)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is under way."""
        await self._acks.close()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
