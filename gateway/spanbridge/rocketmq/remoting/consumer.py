"""The consumer without a proxy: a source that receives from RocketMQ's brokers, on the caller's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from spanbridge.core.message import Message
from spanbridge.ports import Acked, Received, Reporter
from spanbridge.rocketmq.group_source import GroupSource, receiving
from spanbridge.rocketmq.held import DeliveryAnswer, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.receive_health import ReceiveHealth
from spanbridge.rocketmq.remoting.brokers import RemotingBrokers
from spanbridge.rocketmq.remoting.cluster import RemotingCluster
from spanbridge.rocketmq.remoting.codes import RequestCode
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.group import PULL
from spanbridge.rocketmq.remoting.inbox import ConsumerParts, ReceiveWay
from spanbridge.rocketmq.remoting.incoming import Incoming
from spanbridge.rocketmq.remoting.intake import once_more, sort_incoming
from spanbridge.rocketmq.remoting.pop_way import PopWay, have_pop
from spanbridge.rocketmq.remoting.pull_way import PullWay
from spanbridge.rocketmq.remoting.routes import ReadRoute
from spanbridge.rocketmq.remoting.subscription import RemotingSubscription


class RemotingConsumer(GroupSource[RemotingCluster[ReadRoute]]):
    """Implements :class:`spanbridge.ports.QueueSource`. Made by :func:`spanbridge.rocketmq.create_consumer`."""

    def __init__(self, options: ConsumerOptions, reporter: Reporter, received: Received, acked: Acked) -> None:
        self._subscription = RemotingSubscription(options)
        cluster = RemotingCluster(receiving(options), self._subscription.role(self._asked), reporter)
        super().__init__(options, cluster, reporter)
        self._health = ReceiveHealth(options, cluster, reporter)
        self._parts = ConsumerParts(
            options,
            cluster,
            RemotingBrokers(cluster),
            self._subscription,
            self._held,
            self._health,
            self._open,
            reporter,
            received,
            acked,
            self.take,
        )
        self._way: ReceiveWay = PopWay(self._parts)

    # -- receiving --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._tasks = [asyncio.get_running_loop().create_task(self._receive())]

    async def _receive(self) -> None:
        """By POP where the brokers have it, else by pulling."""
        wanted = self._options.cluster.receive_by
        if wanted != "pull" and (wanted == "pop" or await have_pop(self._parts)):
            await self._way.keep()
        self._subscription.consume_type = PULL
        await self._way.close()
        for delivery in self._held:  # what POP brought comes again when its invisible time has passed
            self._held.answer(delivery, DeliveryAnswer.NACK)
            self._held.forget(delivery)
        self._way = PullWay(self._parts, self._again)
        if not self._delivering:
            await self._way.stop()
        await self._way.keep()

    def _asked(self, request: Frame) -> None:
        """A broker tells that the members of the group may have changed."""
        if request.code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED and isinstance(self._way, PullWay):
            self._way.changed.set()

    def take(self, broker: str, messages: Sequence[Incoming], began_ns: int) -> list[Message]:
        """See :data:`spanbridge.rocketmq.remoting.inbox.TakeIncoming`."""
        arrived = sort_incoming(self._parts, self, broker, messages, began_ns)
        if arrived.unwanted:
            self.ack(arrived.unwanted)
        if arrived.over:
            self.reject(arrived.over, f"they were delivered {self._subscription.settings.max_attempts} times")
        self._hand_over(arrived.fresh, len(arrived.taken))
        return arrived.taken

    def _again(self, delivery: ReceivedMessage) -> None:
        """Deliver a message once more that could not be handled."""
        self._held.forget(delivery)
        if self._delivering and self._deliver is not None:
            fresh = once_more(delivery, self)
            self._held.take(fresh)
            self._deliver([fresh])

    async def stop_intake(self) -> None:
        """See the base class."""
        self._delivering = False
        self._judge_gate()
        await self._way.stop()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _conclude(self, deliveries: Sequence[ReceivedMessage]) -> None:
        self._way.conclude(deliveries)

    def _concluding(self) -> Collection[asyncio.Task[None]]:
        return self._way.tasks

    def _leave(self) -> None:
        self._way.leaving = True

    async def give_back(self) -> None:
        """See the base class. Queues that were ours by right are for the others then."""
        await super().give_back()
        await self._way.leave()

    async def _end(self) -> None:
        await self._way.close()

    # -- notes ------------------------------------------------------------------------------------------------------

    @property
    def _works(self) -> bool:
        return bool(self._health.working)

    @property
    def _failing(self) -> str | None:
        return self._health.failing

    def _detail(self) -> dict[str, Any]:
        return {
            "protocol": "remoting",
            "receives_by": "pop" if isinstance(self._way, PopWay) else "pull",
            "fifo": self._subscription.settings.orderly,
            "brokers": {broker: broker in self._health.working for broker in sorted(self._way.brokers)},
        }
