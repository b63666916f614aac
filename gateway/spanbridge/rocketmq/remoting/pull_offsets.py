"""Offsets of a group that pulls, told to brokers from time to time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.rocketmq.receive_events import AckRetried
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.progress import QueueProgress
from spanbridge.rocketmq.remoting.pulling import commit_offset

COMMIT_INTERVAL: Final = 1.0
"""Seconds. What was handled since the last commit comes again where a consumer dies."""


class PullOffsets:
    """Commits what is handled."""

    def __init__(self, parts: ConsumerParts) -> None:
        self._parts = parts
        self._one_at_a_time = asyncio.Lock()

    async def commit(self, queues: Iterable[QueueProgress]) -> None:
        """Tell the brokers how far these are, where they have gone on since. What fails is told with the next.

        A broker handles the requests of one connection side by side, and keeps what it handled last.
        """
        async with self._one_at_a_time:
            await asyncio.gather(*(self._commit(one) for one in queues if one.offset != one.committed))

    async def _commit(self, progress: QueueProgress) -> None:
        parts, offset, count = self._parts, progress.offset, progress.done_since
        call = commit_offset(parts.subscription.names.group, progress.queue, offset)
        began = time.time_ns()
        failed: str | None = None
        try:
            await parts.brokers.ask(progress.queue.broker, call, f"offset of group {parts.subscription.group!r}")
        except SinkError as error:
            failed = error.reason
            parts.reporter.report(AckRetried(reason=error.reason, cause=str(bare(error)), count=count))
        else:
            progress.committed = offset
            progress.done_since -= count
        if count:
            parts.acked(parts.options.topic, count, began, time.time_ns(), failed)
