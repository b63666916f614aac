"""Answers to messages that were pulled: handled, sent back to come again later, or moved to the dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.held import DeliveryAnswer, ReceivedMessage
from spanbridge.rocketmq.receive_events import DeadLetterFailed, NackFailed
from spanbridge.rocketmq.remoting.group import send_back
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.progress import PullHandle

_AT_ONCE: Final = 32
"""Requests under way at once; each is for one message."""
_DEAD_LETTERS: Final = -1
_LEVELS: Final = (1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)
"""Seconds of the delay levels from 1 on (``messageDelayLevel``), unless a broker was given others."""

Again = Callable[[ReceivedMessage], None]
"""Delivers a message once more."""


class PullAnswers:
    """Carries out acks, nacks and rejections.

    A group in order has no retry topic: what is nacked is delivered ``again`` by us, and its queue waits.
    """

    def __init__(self, parts: ConsumerParts, again: Again) -> None:
        self._parts = parts
        self._again = again
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._waiting: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.leaving = False

    def conclude(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        for delivery in deliveries:
            if delivery.answer is DeliveryAnswer.ACK:
                self._done(delivery)
            elif self._left(delivery):
                self._parts.held.forget(delivery)
            elif delivery.answer is DeliveryAnswer.REJECT:
                self._start(self._reject, delivery, self._tasks)
            elif self._parts.subscription.settings.orderly:
                self._start(self._repeat, delivery, self._waiting)
            else:
                self._start(self._send_back, delivery, self._tasks)

    def _left(self, delivery: ReceivedMessage) -> bool:
        """Whether a message comes again anyway: to whom has the queue next."""
        handle: PullHandle = delivery.handle
        return handle.progress.gone or (self.leaving and delivery.answer is DeliveryAnswer.NACK)

    def _done(self, delivery: ReceivedMessage) -> None:
        handle: PullHandle = delivery.handle
        handle.progress.done(handle.offset, handle.turn)
        self._parts.held.forget(delivery)

    async def _send_back(self, delivery: ReceivedMessage) -> None:
        attempt = delivery.message.attempt
        pause = self._parts.subscription.settings.pause(attempt)
        try:
            await self._ask(delivery, _level(pause))
        except SinkError as error:
            self._parts.reporter.report(NackFailed(reason=error.reason, cause=str(bare(error))))
            self._start(self._repeat, delivery, self._waiting)
        else:
            self._done(delivery)

    async def _reject(self, delivery: ReceivedMessage) -> None:
        try:
            await self._ask(delivery, _DEAD_LETTERS)
        except SinkError as error:
            self._parts.reporter.report(DeadLetterFailed(reason=error.reason, cause=str(bare(error))))
            self._start(self._repeat, delivery, self._waiting)
        else:
            self._done(delivery)

    async def _ask(self, delivery: ReceivedMessage, level: int) -> None:
        subscription, handle = self._parts.subscription, delivery.handle
        call = send_back(
            subscription.names.group,
            handle.progress.queue.topic,
            handle.physical_offset,
            delivery.message.message_id,
            level=level,
            max_attempts=subscription.settings.max_attempts - 1,
        )
        async with self._gate:
            what = f"message sent back by group {subscription.group!r}"
            await self._parts.brokers.ask(delivery.broker, call, what)

    async def _repeat(self, delivery: ReceivedMessage) -> None:
        """Deliver a message once more, after its pause."""
        settings = self._parts.subscription.settings
        try:
            await asyncio.sleep(settings.pause(delivery.message.attempt))
        except asyncio.CancelledError:
            self._parts.held.forget(delivery)
            raise
        if self._left(delivery):
            self._parts.held.forget(delivery)
        elif delivery.message.attempt >= settings.max_attempts:
            await self._reject(delivery)
        else:
            self._again(delivery)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Requests under way."""
        return set(self._tasks)

    def give_up(self) -> None:
        """Let those go that wait to be delivered once more: they come again to others."""
        for task in self._waiting:
            task.cancel()

    def _start(
        self,
        work: Callable[[ReceivedMessage], Awaitable[None]],
        delivery: ReceivedMessage,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        async def run() -> None:
            with guarded("answers to messages", self._parts.reporter):
                await work(delivery)

        task = asyncio.get_running_loop().create_task(run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def close(self) -> None:
        """End what is under way."""
        tasks = self._tasks | self._waiting
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _level(pause: float) -> int:
    """The delay level that is nearest from above."""
    return next((level for level, seconds in enumerate(_LEVELS, 1) if seconds >= pause), len(_LEVELS))
