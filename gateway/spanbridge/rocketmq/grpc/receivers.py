"""One receiver for each broker of a topic's route, and which of them work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.message import Message
from spanbridge.core.retry import Backoff
from spanbridge.ports import Received, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.cluster import Cluster
from spanbridge.rocketmq.grpc.receive import Receiver
from spanbridge.rocketmq.grpc.subscription import GroupSubscription
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.receive_health import ReceiveHealth

_LOOK = 1.0
"""Seconds between looks at the route, which is refreshed elsewhere."""

Take = Callable[[str, list[Any], int, str | None], list[Message]]


class Receivers:
    """Implements :class:`spanbridge.rocketmq.grpc.receive.Inbox`. Messages go to ``take``."""

    def __init__(
        self,
        options: ConsumerOptions,
        *,
        cluster: Cluster,
        brokers: Brokers,
        subscription: GroupSubscription,
        reporter: Reporter,
        received: Received,
        take: Take,
        open: asyncio.Event,  # noqa: A002 - as in Inbox
    ) -> None:
        self.open = open
        """Set while messages are wanted."""
        self._take = take
        self._options = options
        self._cluster = cluster
        self._brokers = brokers
        self._subscription = subscription
        self._reporter = reporter
        self._received = received
        self._receivers: dict[str, Receiver] = {}
        self.health = ReceiveHealth(options, cluster, reporter)

    @property
    def brokers(self) -> dict[str, bool]:
        """The brokers, and whether messages come from them, or would if there were any."""
        working = self.health.working
        return {broker: broker in working for broker in self._receivers}

    def refused(self, error: SinkError) -> None:
        """A proxy does not want us as a consumer."""
        self.fails("", error, self._options.cluster.heartbeat_interval)

    def take(self, broker: str, messages: list[Any], began_ns: int, fault: str | None = None) -> list[Message]:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        return self._take(broker, messages, began_ns, fault)

    def works(self, broker: str) -> None:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        self.health.works(broker)

    def fails(self, broker: str, error: SinkError, retry_in: float) -> None:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        self.health.fails(broker, error, retry_in)

    async def keep(self) -> None:
        """Have a receiver for each broker of the route, until cancelled."""
        backoff = Backoff(self._options.backoff_initial, self._options.backoff_maximum)
        while True:
            pause = _LOOK
            with guarded("receivers", self._reporter):
                try:
                    route = await self._cluster.routes.get(self._options.topic)
                except SinkError as error:
                    pause = backoff.next_delay(random.random())  # noqa: S311 - jitter
                    self.fails("", bare(error), pause)
                else:
                    backoff.reset()
                    self._brokers.learn(route.origins)
                    await self._adjust({origin.broker for origin in route.origins})
            await asyncio.sleep(pause)

    async def _adjust(self, brokers: set[str]) -> None:
        for broker in brokers - self._receivers.keys():
            receiver = Receiver(
                broker,
                options=self._options,
                subscription=self._subscription,
                brokers=self._brokers,
                inbox=self,
                reporter=self._reporter,
                received=self._received,
            )
            self._receivers[broker] = receiver
            receiver.start()
        for broker in self._receivers.keys() - brokers:
            self.health.forget(broker)
            await self._receivers.pop(broker).stop()

    async def stop(self) -> bool:
        """End what is under way; whether there was anything."""
        receivers, self._receivers = self._receivers, {}
        await asyncio.gather(*(receiver.stop() for receiver in receivers.values()))
        return bool(receivers)
