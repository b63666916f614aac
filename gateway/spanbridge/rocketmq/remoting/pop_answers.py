"""Answers to messages received by POP: hidden while they are in our hands, then acknowledged, returned or rejected."""

from __future__ import annotations

import time
from typing import Final

from spanbridge.rocketmq.group_answers import GroupAnswers
from spanbridge.rocketmq.held import ReceivedMessage
from spanbridge.rocketmq.remoting.group import send_back
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.pop import change_invisible
from spanbridge.rocketmq.remoting.pop_acks import PopAcks

_DEAD_LETTERS: Final = -1


class PopAnswers(GroupAnswers):
    """Asks the brokers."""

    def __init__(self, parts: ConsumerParts) -> None:
        super().__init__(parts.options, parts.held, PopAcks(parts), parts.reporter)
        self._brokers = parts.brokers
        self._subscription = parts.subscription

    def _pause(self, attempt: int) -> float:
        return self._subscription.settings.pause(attempt)

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
        changed = await self._brokers.ask(broker, call, f"invisible time for group {self._group!r}")
        if delivery.handle is handle:  # otherwise the message came again meanwhile, with one that is newer
            delivery.handle = changed
            self._held.keep(delivery, began + int(invisible * 1e9))

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
        await self._brokers.ask(delivery.broker, call, f"dead letter of group {self._group!r}")
