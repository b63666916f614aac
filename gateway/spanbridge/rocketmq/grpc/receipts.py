"""Receipt handles: kept while a message is in our hands, and given up in the way its holder asks for."""

from __future__ import annotations

import time
from typing import Any

from spanbridge.ports import Reporter
from spanbridge.rocketmq.group_acks import GroupAcks
from spanbridge.rocketmq.group_answers import GroupAnswers
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.stubs import service
from spanbridge.rocketmq.grpc.subscription import GroupSubscription
from spanbridge.rocketmq.held import Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions


class Receipts(GroupAnswers):
    """Asks the proxy of a message's broker."""

    def __init__(
        self,
        options: ConsumerOptions,
        held: Held,
        acks: GroupAcks,
        reporter: Reporter,
        *,
        brokers: Brokers,
        subscription: GroupSubscription,
    ) -> None:
        super().__init__(options, held, acks, reporter)
        self._brokers = brokers
        self._subscription = subscription

    def _pause(self, attempt: int) -> float:
        return self._subscription.pause(attempt)

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

    async def _to_dead_letters(self, delivery: ReceivedMessage) -> None:
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
        await self._brokers.ask(delivery.broker, "ForwardMessageToDeadLetterQueue", request, response_type, what)
