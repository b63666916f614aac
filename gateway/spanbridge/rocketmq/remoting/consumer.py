"""The consumer without a proxy: a source that receives from RocketMQ's brokers, on the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Message
from spanbridge.ports import Acked, Deliver, Link, PeerStatus, Received, Released, Reporter
from spanbridge.rocketmq import receive_events as events
from spanbridge.rocketmq.held import DeliveryAnswer, Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.remoting.brokers import RemotingBrokers
from spanbridge.rocketmq.remoting.cluster import RemotingCluster
from spanbridge.rocketmq.remoting.codes import RequestCode
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.group import PULL
from spanbridge.rocketmq.remoting.health import ReceiveHealth
from spanbridge.rocketmq.remoting.inbox import ConsumerParts, ReceiveWay
from spanbridge.rocketmq.remoting.incoming import Incoming
from spanbridge.rocketmq.remoting.intake import once_more, sort_incoming
from spanbridge.rocketmq.remoting.pop_way import PopWay, have_pop
from spanbridge.rocketmq.remoting.pull_way import PullWay
from spanbridge.rocketmq.remoting.subscription import RemotingSubscription


class RemotingConsumer:
    """Implements :class:`spanbridge.ports.QueueSource`. Made by :func:`spanbridge.rocketmq.create_consumer`."""

    def __init__(self, options: ConsumerOptions, reporter: Reporter, received: Received, acked: Acked) -> None:
        self._options = options
        self._reporter = reporter
        self._subscription = RemotingSubscription(options)
        connection = replace(options.cluster, topics=(options.topic,), kinds=())
        self._cluster = RemotingCluster(connection, self._subscription.role(self._asked), reporter)
        self._held = Held()
        self._health = ReceiveHealth(options, self._cluster, reporter)
        self._open = asyncio.Event()
        self._parts = ConsumerParts(
            options,
            self._cluster,
            RemotingBrokers(self._cluster),
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
        self._deliver: Deliver[Message] | None = None
        self._paused = False
        self._delivering = True
        self._messages = 0
        self._link = Link.IDLE
        self._since_ns = time.time_ns()
        self._receiving: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    # -- the port ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The configured name of the cluster's connection."""
        return self._options.cluster.name

    @property
    def unacked(self) -> int:
        """Deliveries answered by none of ack, nack and reject."""
        return self._held.unacked

    @property
    def held(self) -> int:
        """Deliveries in our hands."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """What those take in memory, in bytes, about."""
        return self._held.bytes

    def oldest_ns(self) -> int | None:
        """When the oldest unacked delivery arrived (monotonic, ns)."""
        return self._held.oldest_ns()

    def unrepeatable(self) -> list[Delivery[Message]]:
        """None: RocketMQ keeps what is not acknowledged."""
        return []

    async def run(self, deliver: Deliver[Message], released: Released) -> None:
        """Receive until :meth:`close`. One call per source.

        :raises RuntimeError: it runs already, or did.
        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        if self._deliver is not None:
            raise RuntimeError(f"source {self.name!r} was run before")
        self._deliver = deliver
        if self._link is Link.CLOSED:
            return
        self._set_link(Link.CONNECTING)
        await self._cluster.start()
        self._receiving = asyncio.get_running_loop().create_task(self._receive())
        self._judge_gate()
        await self._closed.wait()

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

    def ack(self, deliveries: Sequence[Delivery[Message]]) -> None:
        """Acknowledge these, with whatever else is acknowledged before the loop turns."""
        self._answer(deliveries, DeliveryAnswer.ACK)

    def nack(self, deliveries: Sequence[Delivery[Message]], cause: str) -> None:
        """Have these come again, each after the pause that the group's policy has for its attempt."""
        if count := self._answer(deliveries, DeliveryAnswer.NACK):
            self._reporter.report(
                events.MessagesPostponed(group=self._group, topic=self._topic, cause=cause, count=count)
            )

    def reject(self, deliveries: Sequence[Delivery[Message]], cause: str) -> None:
        """Move these to the group's dead letters."""
        if count := self._answer(deliveries, DeliveryAnswer.REJECT):
            self._reporter.report(
                events.MessagesDeadLettered(group=self._group, topic=self._topic, cause=cause, count=count)
            )

    def _answer(self, deliveries: Sequence[Delivery[Message]], answer: DeliveryAnswer) -> int:
        answered = [
            delivery
            for delivery in deliveries
            if isinstance(delivery, ReceivedMessage) and self._held.answer(delivery, answer)
        ]
        self._way.conclude(answered)
        if not self._open.is_set():
            self._judge_gate()
        return len(answered)

    def pause(self) -> None:
        """Ask for nothing more. Requests under way may still bring up to ``batch`` messages each."""
        self._paused = True
        self._judge_gate()

    def resume(self) -> None:
        """Ask again."""
        self._paused = False
        self._judge_gate()

    async def stop_intake(self) -> None:
        """Deliver nothing more. What still comes is handed back at once."""
        self._delivering = False
        self._judge_gate()
        await self._way.stop()

    async def give_back(self) -> None:
        """Hand every unacked delivery back; what was answered before is seen through, too, as far as time allows."""
        self._delivering = False
        self._judge_gate()
        self._way.leaving = True
        unacked = [delivery for delivery in self._held if self._held.answer(delivery, DeliveryAnswer.NACK)]
        if unacked:
            self._reporter.report(events.MessagesReturned(group=self._group, topic=self._topic, count=len(unacked)))
        self._way.conclude(unacked)
        await self._see_through()
        await self._way.leave()

    async def close(self) -> None:
        """End what is under way, say goodbye and close the connections."""
        if self._link is Link.CLOSED:
            return
        await self.stop_intake()
        await self._see_through()
        self._set_link(Link.CLOSED)
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        await self._way.close()
        self._cluster.change(Link.CLOSED)
        await self._cluster.close()
        self._closed.set()

    async def _see_through(self) -> None:
        """Wait for what was answered to be told to RocketMQ, for a bounded time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.give_back_timeout):
                await asyncio.sleep(0)  # acknowledgements of this turn of the loop are sent then
                while tasks := self._way.tasks:
                    await asyncio.wait(tasks)

    # -- what receivers see -----------------------------------------------------------------------------------------

    def take(self, broker: str, messages: Sequence[Incoming], began_ns: int) -> list[Message]:
        """See :data:`spanbridge.rocketmq.remoting.inbox.TakeIncoming`."""
        arrived = sort_incoming(self._parts, self, broker, messages, began_ns)
        self._messages += len(arrived.fresh)
        if again := len(arrived.taken) - len(arrived.fresh):
            self._reporter.report(events.MessagesAgain(group=self._group, topic=self._topic, count=again))
        if arrived.unwanted:
            self.ack(arrived.unwanted)
        if arrived.over:
            self.reject(arrived.over, f"they were delivered {self._subscription.settings.max_attempts} times")
        self._hand_over(arrived.fresh)
        return arrived.taken

    def _hand_over(self, fresh: list[Delivery[Message]]) -> None:
        if not self._delivering:
            self._way.leaving = True
            self._answer(fresh, DeliveryAnswer.NACK)
        elif fresh:
            assert self._deliver is not None
            self._deliver(fresh)
        self._judge_gate()

    def _again(self, delivery: ReceivedMessage) -> None:
        """Deliver a message once more that could not be handled."""
        self._held.forget(delivery)
        if self._delivering and self._deliver is not None:
            fresh = once_more(delivery, self)
            self._held.take(fresh)
            self._deliver([fresh])

    # -- notes ------------------------------------------------------------------------------------------------------

    def _judge_gate(self) -> None:
        wanted = self._delivering and not self._paused and self._held.unacked < self._options.max_unacked
        if wanted and self._deliver is not None:
            self._open.set()
        else:
            self._open.clear()

    def _link_now(self) -> Link:
        if self._link in {Link.IDLE, Link.CLOSED}:
            return self._link
        if self._health.working and self._cluster.link is Link.UP:
            return Link.UP
        return Link.BACKOFF if self._health.failing or self._cluster.link is Link.BACKOFF else Link.CONNECTING

    def _set_link(self, link: Link) -> None:
        if (link is Link.UP) is not (self._link is Link.UP):
            self._since_ns = time.time_ns()
        self._link = link

    @property
    def _group(self) -> str:
        return self._options.group

    @property
    def _topic(self) -> str:
        return self._options.topic

    @property
    def status(self) -> PeerStatus:
        """The connection as of now."""
        cluster, health = self._cluster, self._health
        self._set_link(self._link_now())
        return PeerStatus(
            name=self.name,
            link=self._link,
            since_ns=self._since_ns,
            last_error=health.failing or cluster.last_error,
            last_error_ns=cluster.last_error_ns,
            detail={
                "protocol": "remoting",
                "receives_by": "pop" if isinstance(self._way, PopWay) else "pull",
                "client_id": cluster.client_id,
                "group": self._group,
                "topic": self._topic,
                "filter": self._options.filter,
                "fifo": self._subscription.settings.orderly,
                "endpoints": cluster.peers(),
                "brokers": {broker: broker in health.working for broker in sorted(self._way.brokers)},
                "unacked": self._held.unacked,
                "held": len(self._held),
                "paused": self._paused,
                "delivering": self._delivering,
                "messages": self._messages,
            },
        )
