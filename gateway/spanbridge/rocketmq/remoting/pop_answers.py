"""Answers to messages received by POP: hidden while they are in our hands, then acknowledged, returned or rejected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.held import DeliveryAnswer, ReceivedMessage
from spanbridge.rocketmq.receive_events import DeadLetterFailed, HoldLost, NackFailed, RenewalFailed
from spanbridge.rocketmq.remoting.group import send_back
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.pop import change_invisible
from spanbridge.rocketmq.remoting.pop_acks import PopAcks

_AT_ONCE: Final = 32
"""Requests under way at once; each is for one message."""
_LOOK: Final = 1.0
"""Seconds between looks at what is to be renewed."""
_SHORTEST: Final = 0.001
"""Seconds for which what is given back stays hidden."""
_INVALID: Final = "invalid_receipt_handle"
_DEAD_LETTERS: Final = -1


class PopAnswers:
    """Renews messages at half of their invisible time, and carries out acks, nacks and rejections."""

    def __init__(self, parts: ConsumerParts) -> None:
        self._brokers = parts.brokers
        self._subscription = parts.subscription
        self._held = parts.held
        self._acks = PopAcks(parts)
        self._reporter = parts.reporter
        self._invisible = parts.options.invisible
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
                self._lose(delivery)
            else:
                self._reporter.report(RenewalFailed(reason=error.reason, cause=str(bare(error))))
        finally:
            delivery.changing = False
            if delivery.answer is not DeliveryAnswer.NONE:  # it was answered meanwhile
                self.conclude((delivery,))

    def _lose(self, delivery: ReceivedMessage) -> None:
        delivery.lost = True
        self._reporter.report(HoldLost(group=self._subscription.group, topic=self._subscription.topic))

    async def _change(self, delivery: ReceivedMessage, invisible: float) -> None:
        """Hide a message for so many seconds from now, and take over its new checkpoint.

        A broker would hide anew what has come to others meanwhile: who is too late does not ask.

        :raises SinkError: the broker did not do it, or did not say so.
        """
        if delivery.visible_ns <= time.monotonic_ns():
            if not delivery.lost:
                self._lose(delivery)
            return
        handle, broker = delivery.handle, delivery.broker
        began = time.monotonic_ns()
        call = change_invisible(self._subscription.names, handle, broker, invisible)
        changed = await self._brokers.ask(broker, call, f"invisible time for group {self._subscription.group!r}")
        if delivery.handle is handle:  # otherwise the message came again meanwhile, with one that is newer
            delivery.handle = changed
            self._held.keep(delivery, began + int(invisible * 1e9))

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
        pause = _SHORTEST if self.leaving else self._subscription.settings.pause(delivery.message.attempt)
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
        else:
            # What is in the dead letters still counts as in our hands, and locks the queue of a group in order.
            self._acks.add((delivery,))

    async def _to_dead_letters(self, delivery: ReceivedMessage) -> None:
        names, handle = self._subscription.names, delivery.handle
        call = send_back(
            names.group,
            names.real_topic(handle.checkpoint),
            handle.physical_offset,
            delivery.message.message_id,
            level=_DEAD_LETTERS,
            max_attempts=0,
        )
        await self._brokers.ask(delivery.broker, call, f"dead letter of group {self._subscription.group!r}")

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
