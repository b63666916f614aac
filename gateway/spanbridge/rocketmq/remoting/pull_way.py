"""Receiving by pulling, where there is no POP: queues are shared out among the members of the group.

Each member computes its share by itself, from the same lists (``RebalanceImpl``). Until all know of a change, a queue
may have two readers: its messages come twice then. Groups in order lock their queues at the brokers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.retry import Backoff
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.held import DeliveryAnswer, ReceivedMessage
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.pull_answers import Again, PullAnswers
from spanbridge.rocketmq.remoting.pull_offsets import COMMIT_INTERVAL, PullOffsets
from spanbridge.rocketmq.remoting.pull_receive import PullReceiver
from spanbridge.rocketmq.remoting.pulling import (
    ReadQueue,
    by_broker,
    lock_queues,
    member_ids,
    retry_topic,
    share,
    unlock_queues,
)
from spanbridge.rocketmq.remoting.routes import ReadRoute

_REBALANCE: Final = 20.0
"""Seconds between looks at who is in the group. Brokers tell of changes; a lock holds for 60 s."""
_SOON: Final = 2.0
"""Seconds until the next look where queues are locked for another, or the retry topic is not there yet."""


class PullWay:
    """Implements :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""

    def __init__(self, parts: ConsumerParts, again: Again) -> None:
        self._parts = parts
        self._answers = PullAnswers(parts, again)
        self._offsets = PullOffsets(parts)
        self._receivers: dict[ReadQueue, PullReceiver] = {}
        self._stopping = False
        self._committing: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()
        """Set when the group's members may have changed."""

    @property
    def leaving(self) -> bool:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        return self._answers.leaving

    @leaving.setter
    def leaving(self, leaving: bool) -> None:
        self._answers.leaving = leaving
        self._answers.give_up()

    @property
    def brokers(self) -> frozenset[str]:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        return frozenset(queue.broker for queue in self._receivers)

    async def keep(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        committing = asyncio.get_running_loop().create_task(self._keep_offsets())
        backoff = Backoff(self._parts.options.backoff_initial, self._parts.options.backoff_maximum)
        try:
            while True:
                pause = _REBALANCE
                self.changed.clear()
                with guarded("rebalancing", self._parts.reporter):
                    try:
                        if not self._stopping and not await self._rebalance():
                            pause = _SOON
                    except SinkError as error:
                        pause = backoff.next_delay(random.random())  # noqa: S311 - jitter
                        self._parts.health.fails("", bare(error), pause)
                    else:
                        backoff.reset()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self.changed.wait()
        finally:
            committing.cancel()

    async def _keep_offsets(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL)
            with guarded("offsets", self._parts.reporter):
                # A commit under way is not cut short: the last one has to wait for it.
                self._committing = asyncio.get_running_loop().create_task(self._commit(self._receivers.values()))
                await asyncio.shield(self._committing)

    async def _commit(self, receivers: Iterable[PullReceiver]) -> None:
        await self._offsets.commit([one.progress for one in list(receivers) if one.progress is not None])

    # -- which queues are ours --------------------------------------------------------------------------------------

    async def _rebalance(self) -> bool:
        """Have the queues that are ours, and no others; whether all of them are there.

        :raises SinkError: nobody says which those are.
        """
        parts = self._parts
        route = await parts.cluster.routes.get(parts.options.topic)
        parts.brokers.learn(route.masters)
        address = next(iter(route.masters.values()))
        await parts.subscription.learn(parts.cluster, address)
        members = await self._members(address)
        queues = [ReadQueue(route.wire_topic, broker, number) for broker, number in route.queues]
        ours = set(share(queues, members, parts.cluster.client_id))
        retries = await self._retry_queues(route)
        ours |= set(share(retries, members, parts.cluster.client_id))
        complete = bool(retries)
        if parts.subscription.settings.orderly:
            locked = await self._lock(ours)
            complete, ours = locked == ours, locked
        before = self.brokers
        await self._adjust(ours, route.wire_topic)
        for broker in before - route.masters.keys():
            parts.health.forget(broker)
        for broker in route.masters:
            if broker not in self.brokers:  # all of its queues are others'
                parts.health.works(broker)
        return complete

    async def _members(self, address: str) -> tuple[str, ...]:
        """Who is in the group, us included: brokers know us by our heartbeats."""
        parts = self._parts
        call = member_ids(parts.subscription.names.group)
        what = f"members of group {parts.subscription.group!r}"
        endpoint = parts.cluster.endpoint(address)
        members = await endpoint.ask(call, what)
        if parts.cluster.client_id not in members:
            await parts.cluster.beat(address)
            members = await endpoint.ask(call, what)
        return members

    async def _retry_queues(self, route: ReadRoute) -> list[ReadQueue]:
        """Of the group's retry topic, which brokers make once they know the group."""
        topic = retry_topic(self._parts.subscription.names)
        with suppress(SinkError):
            found = await self._parts.cluster.wire_route(topic)
            if found is not None:
                return [
                    ReadQueue(topic, one.broker, number)
                    for one in found.brokers
                    if one.broker in route.masters
                    for number in range(one.read_queues)
                ]
        return []

    async def _lock(self, wanted: set[ReadQueue]) -> set[ReadQueue]:
        """Those of the queues that are locked for us; others are still another's."""
        parts = self._parts
        group, client = parts.subscription.names.group, parts.cluster.client_id
        locked: set[ReadQueue] = set()
        for broker, queues in by_broker(wanted).items():
            with suppress(SinkError):
                what = f"locks of group {parts.subscription.group!r}"
                locked |= await parts.brokers.ask(broker, lock_queues(group, client, queues), what) & wanted
        return locked

    async def _adjust(self, ours: set[ReadQueue], topic: str) -> None:
        if self._stopping:
            return
        lost = [self._receivers.pop(queue) for queue in self._receivers.keys() - ours]
        await self._leave(lost)
        for queue in ours - self._receivers.keys():
            receiver = self._receivers[queue] = PullReceiver(queue, self._parts, own=queue.topic == topic)
            receiver.start()

    async def _leave(self, receivers: Iterable[PullReceiver]) -> None:
        """Let others have these queues: what we hold of them comes again to them."""
        leaving = list(receivers)
        await asyncio.gather(*(receiver.stop() for receiver in leaving))
        await self._commit(leaving)
        gone = {receiver.progress for receiver in leaving if receiver.progress is not None}
        for progress in gone:
            progress.gone = True
        held = self._parts.held
        for delivery in held:
            if delivery.handle.progress in gone:
                held.answer(delivery, DeliveryAnswer.NACK)
                held.forget(delivery)
        if self._parts.subscription.settings.orderly:
            await self._unlock([receiver.queue for receiver in leaving])

    async def _unlock(self, queues: Iterable[ReadQueue]) -> None:
        parts = self._parts
        for broker, some in by_broker(queues).items():
            call = unlock_queues(parts.subscription.names.group, parts.cluster.client_id, some)
            with suppress(SinkError):
                await parts.brokers.ask(broker, call, f"locks of group {parts.subscription.group!r}")

    # -- answers ----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        self._stopping = True
        await asyncio.gather(*(receiver.stop() for receiver in self._receivers.values()))

    def conclude(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        self._answers.conclude(deliveries)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        return self._answers.tasks

    async def leave(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        receivers, self._receivers = self._receivers, {}
        await self._leave(receivers.values())
        await self._parts.cluster.leave()

    async def close(self) -> None:
        """See :class:`spanbridge.rocketmq.remoting.inbox.ReceiveWay`."""
        await self._answers.close()
        await self.leave()
        if self._committing is not None:
            await asyncio.gather(self._committing, return_exceptions=True)
