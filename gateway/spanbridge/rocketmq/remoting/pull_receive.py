"""Receiving from one queue by pulling: long polls one after the other, from the offset where the group goes on."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.message import Message
from spanbridge.core.retry import Backoff
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.remoting.admin import max_offset
from spanbridge.rocketmq.remoting.endpoint import RemotingEndpoint
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.incoming import Incoming
from spanbridge.rocketmq.remoting.progress import PullHandle, QueueProgress
from spanbridge.rocketmq.remoting.pulling import PullAnswer, ReadQueue, first_offset, pull_waiting

_ACCEPTED: Final = 1.0
"""Seconds after which a request counts as accepted: what a broker refuses, it refuses at once."""
_SPAN: Final = 2000
"""How far a queue may be read ahead of its first message that is not handled: so many come again if we end."""


class PullReceiver:
    """Receives from one queue until it is stopped. ``progress`` is there once the group's offset is known.

    ``own`` is whether the queue's topic is the one subscribed to; of the group's retry topic, everything is wanted.
    """

    def __init__(self, queue: ReadQueue, parts: ConsumerParts, *, own: bool) -> None:
        self.queue = queue
        self.progress: QueueProgress | None = None
        self._parts = parts
        self._own = own
        self._done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to receive."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        options, parts = self._parts.options, self._parts
        backoff = Backoff(options.backoff_initial, options.backoff_maximum)
        broker = self.queue.broker
        while True:
            pause = options.backoff_maximum
            with guarded("receiving", parts.reporter):
                try:
                    progress = self.progress or await self._begin()
                    await self._ready(progress)
                    await self._receive(progress)
                except SinkError as error:
                    pause = backoff.next_delay(random.random())  # noqa: S311 - jitter
                    parts.health.fails(broker, bare(error), pause)
                else:
                    backoff.reset()
                    parts.health.works(broker)
                    continue
            await asyncio.sleep(pause)

    async def _begin(self) -> QueueProgress:
        """Where the group was; a new group begins at the queue's end, or at its beginning where that is fresh.

        The end is asked for first: what is stored between the two answers is then in front of us, whichever counts.
        """
        names, queue, brokers = self._parts.subscription.names, self.queue, self._parts.brokers
        what = f"offset of group {self._parts.subscription.group!r}"
        end = await brokers.ask(queue.broker, max_offset(queue.topic, queue.queue), what) if self._own else 0
        known = await brokers.ask(queue.broker, first_offset(names.group, queue), what)
        offset = end if known is None else known
        self.progress = QueueProgress(queue, offset, self._done.set)
        return self.progress

    async def _ready(self, progress: QueueProgress) -> None:
        """In order, one batch is handled before the next is asked for."""
        orderly = self._parts.subscription.settings.orderly
        await self._parts.open.wait()
        while (orderly and progress.unfinished) or progress.span >= _SPAN:
            self._done.clear()
            await self._done.wait()
            await self._parts.open.wait()

    async def _receive(self, progress: QueueProgress) -> None:
        parts, queue = self._parts, self.queue
        subscription, wait = parts.subscription, parts.options.long_poll
        call = pull_waiting(
            subscription.names.group,
            queue,
            progress.next_offset,
            expression=subscription.expression if self._own else "*",
            kind=subscription.kind if self._own else "TAG",
            at_most=subscription.batch,
            wait=wait,
        )
        what = f"receiving for group {subscription.group!r} from topic {subscription.topic!r}"
        began_ns, started_ns = time.monotonic_ns(), time.time_ns()
        endpoint = parts.brokers.long_polls(queue.broker)
        accepted = asyncio.get_running_loop().call_later(_ACCEPTED, self._accepted, endpoint)
        try:
            answer = await endpoint.ask(call, what, timeout=wait + parts.options.cluster.request_timeout)
        finally:
            accepted.cancel()
        if progress.gone:
            return
        messages = self._take(progress, answer, began_ns)
        if messages:
            parts.received(messages, started_ns, time.time_ns())

    def _take(self, progress: QueueProgress, answer: PullAnswer, began_ns: int) -> list[Message]:
        if answer.moved:
            progress.moved(answer.next_offset)
        found = [one for one in answer.messages if one.queue_offset >= progress.next_offset]
        progress.took([one.queue_offset for one in found], answer.next_offset)
        turn, queue = progress.turn, f"{self.queue.topic} {self.queue.broker} {self.queue.queue}"
        incoming = [
            Incoming(
                one,
                PullHandle(progress, one.queue_offset, one.physical_offset, turn),
                one.attempts,
                f"{queue} {one.queue_offset}",
            )
            for one in found
        ]
        return self._parts.take(self.queue.broker, incoming, began_ns) if incoming else []

    def _accepted(self, endpoint: RemotingEndpoint) -> None:
        if endpoint.connected:
            self._parts.health.works(self.queue.broker)

    async def stop(self) -> None:
        """Ask for nothing more. What a broker answers now is lost here, and stays in the queue."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
