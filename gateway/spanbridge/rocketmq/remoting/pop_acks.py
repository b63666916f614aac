"""Acknowledgements of messages received by POP: many in one request."""

from __future__ import annotations

import time
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.rocketmq.group_acks import GroupAcks
from spanbridge.rocketmq.held import ReceivedMessage
from spanbridge.rocketmq.receive_events import AckRetried
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.pop import ack, ack_batch, fits

_TOGETHER: Final = 256
"""Messages in one request."""
_NO_BATCHES: Final = frozenset({"unimplemented", "forbidden"})
"""Why a broker does not take a batch, although it may take single messages."""
_UNKNOWN: Final = frozenset({"message_illegal", "invalid_receipt_handle"})
"""What a broker says of messages that it does not wait for any more."""


class PopAcks(GroupAcks):
    """Sends acknowledgements, and tries those that failed again for as long as the messages are ours."""

    def __init__(self, parts: ConsumerParts) -> None:
        super().__init__(parts.options, parts.held, parts.reporter, parts.acked, together=_TOGETHER)
        self._brokers = parts.brokers
        self._names = parts.subscription.names
        self._singly: set[str] = set()

    async def _try(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        """See the base class. Brokers take what comes too late and ignore it: they do not say so."""
        batch = self._still_ours(batch)
        singly = broker in self._singly
        together = [] if singly else [one for one in batch if fits(one.handle)]
        apart = batch if singly else [one for one in batch if not fits(one.handle)]
        failed = await self._ask(broker, together) if together else []
        for one in apart:
            failed += await self._ask(broker, [one])
        return failed

    async def _ask(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        names = self._names
        began = time.time_ns()
        if len(batch) == 1:
            call = ack(names, batch[0].handle, broker)
        else:
            call = ack_batch(names, broker, (one.handle for one in batch))
        try:
            await self._brokers.ask(broker, call, f"acknowledging to group {self._group!r}")
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
