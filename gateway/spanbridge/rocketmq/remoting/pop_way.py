"""Receiving by POP: a receiver for each broker of the topic's route."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.retry import Backoff
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.held import ReceivedMessage
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.pop_answers import PopAnswers
from spanbridge.rocketmq.remoting.pop_receive import PopReceiver

_LOOK: Final = 1.0
"""Seconds between looks at the route, which is refreshed elsewhere."""
FIRST_WITH_POP: Final = 413
"""``MQVersion.V5_0_0``"""


class PopWay:
    """Implements :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""

    def __init__(self, parts: ConsumerParts) -> None:
        self._parts = parts
        self._answers = PopAnswers(parts)
        self._receivers: dict[str, PopReceiver] = {}
        self._refused = False
        self._stopping = False

    @property
    def leaving(self) -> bool:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        return self._answers.leaving

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        self._answers.leaving = leaving

    @property
    def brokers(self) -> frozenset[str]:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        return frozenset(self._receivers)

    async def keep(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        renewing = asyncio.get_running_loop().create_task(self._answers.keep())
        try:
            await self._keep_receivers()
            await self.stop()
        finally:
            renewing.cancel()

    async def _keep_receivers(self) -> None:
        parts = self._parts
        backoff = Backoff(parts.options.backoff_initial, parts.options.backoff_maximum)
        while not self._refused:
            pause = _LOOK
            with guarded("receivers", parts.reporter):
                try:
                    route = await parts.cluster.routes.get(parts.options.topic)
                except SinkError as error:
                    pause = backoff.next_delay(random.random())  # noqa: S311 - jitter
                    parts.health.fails("", bare(error), pause)
                else:
                    backoff.reset()
                    parts.brokers.learn(route.masters)
                    await self._adjust(set(route.masters))
            await asyncio.sleep(pause)

    async def _adjust(self, brokers: set[str]) -> None:
        if self._stopping:
            return
        for broker in brokers - self._receivers.keys():
            receiver = self._receivers[broker] = PopReceiver(broker, self._parts, self._pop_refused)
            receiver.start()
        for broker in self._receivers.keys() - brokers:
            self._parts.health.forget(broker)
            await self._receivers.pop(broker).stop()

    def _pop_refused(self) -> None:
        self._refused = True

    async def stop(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        self._stopping = True
        receivers, self._receivers = self._receivers, {}
        await asyncio.gather(*(receiver.stop() for receiver in receivers.values()))

    def conclude(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        self._answers.conclude(deliveries)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        return self._answers.tasks

    async def leave(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`. No queue is ours."""

    async def close(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        await self._answers.close()


async def have_pop(parts: ConsumerParts) -> bool:
    """Whether all brokers of the topic's route have POP, by their versions. Asks until they say."""
    backoff = Backoff(parts.options.backoff_initial, parts.options.backoff_maximum)
    while True:
        try:
            route = await parts.cluster.routes.get(parts.options.topic)
            versions = [await parts.cluster.beat(address) for address in route.masters.values()]
        except SinkError as error:
            pause = backoff.next_delay(random.random())  # noqa: S311 - jitter
            parts.health.fails("", bare(error), pause)
            await asyncio.sleep(pause)
        else:
            return min(versions) >= FIRST_WITH_POP
