"""Acknowledgements to a proxy: the result of each is looked at."""

from __future__ import annotations

import time
from typing import Any

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.protobuf import length
from spanbridge.ports import Acked, Reporter
from spanbridge.rocketmq.group_acks import GroupAcks
from spanbridge.rocketmq.grpc.answers import OK, judge_code
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.grpc.subscription import GroupSubscription
from spanbridge.rocketmq.held import Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.receive_events import AckRetried

_TOGETHER = 128
"""Messages in one request, of which each takes about 300 bytes: more than 65 535 would have to wait for the proxy to
allow more. It acknowledges them one by one inside."""

INVALID_HANDLE: int = definition.Code.INVALID_RECEIPT_HANDLE


def entry(delivery: ReceivedMessage) -> bytes:
    """One of the ``entries`` of an ``AckMessageRequest`` (service.proto). Hot path."""
    identity, handle = delivery.message.message_id.encode(), delivery.handle.encode()
    first, second = length(len(identity)), length(len(handle))
    size = 2 + len(first) + len(identity) + len(second) + len(handle)
    return b"".join((b"\x1a", length(size), b"\x0a", first, identity, b"\x12", second, handle))


class Acks(GroupAcks):
    """Sends acknowledgements, and tries those that failed again for as long as their handles hold."""

    def __init__(
        self,
        options: ConsumerOptions,
        held: Held,
        reporter: Reporter,
        acked: Acked,
        *,
        brokers: Brokers,
        subscription: GroupSubscription,
    ) -> None:
        super().__init__(options, held, reporter, acked, together=_TOGETHER)
        self._brokers = brokers
        head = service.AckMessageRequest(group=subscription.group, topic=subscription.topic)
        self._head: bytes = head.SerializeToString()

    async def _try(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """One request. What is to be tried again comes back."""
        request = self._head + b"".join([entry(delivery) for delivery in batch])
        began = time.time_ns()
        what = f"acknowledging to group {self._group!r}"
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
            cause = f"RocketMQ did not take acknowledgements of group {self._group!r}: {reason}."
            self._reporter.report(AckRetried(reason=reason, cause=cause, count=len(failed)))
        return [delivery for delivery, _ in failed]
