"""The consumer: a source that receives from RocketMQ 5 over gRPC, on the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError
from spanbridge.core.message import Message
from spanbridge.ports import Acked, Deliver, Link, PeerStatus, Received, Released, Reporter
from spanbridge.rocketmq import receive_events as events
from spanbridge.rocketmq.grpc.acks import Acks
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.cluster import Cluster
from spanbridge.rocketmq.grpc.decode import read_message, read_without_body
from spanbridge.rocketmq.grpc.receipts import Receipts
from spanbridge.rocketmq.grpc.receivers import Receivers
from spanbridge.rocketmq.grpc.session import ClientRole
from spanbridge.rocketmq.grpc.subscription import CLIENT_TYPE, GroupSubscription
from spanbridge.rocketmq.held import Arrival, DeliveryAnswer, Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions

_SETTLE = 1.0
"""Seconds for a proxy to answer a ping."""


class GrpcConsumer:
    """Implements :class:`spanbridge.ports.QueueSource`. Made by :func:`spanbridge.rocketmq.create_consumer`."""

    def __init__(self, options: ConsumerOptions, reporter: Reporter, received: Received, acked: Acked) -> None:
        self._options = options
        self._reporter = reporter
        self._subscription = GroupSubscription(options)
        role = ClientRole(CLIENT_TYPE, self._settings, self._subscription.take, self._subscription.group, self._refused)
        connection = replace(options.cluster, topics=(options.topic,), kinds=())
        self._cluster = Cluster(connection, role, reporter)
        self._brokers = Brokers(self._cluster, options.cluster.request_timeout)
        self._held = Held()
        self._acks = Acks(self._brokers, self._subscription, self._held, reporter, acked)
        self._receipts = Receipts(
            brokers=self._brokers,
            subscription=self._subscription,
            held=self._held,
            acks=self._acks,
            reporter=reporter,
            invisible=options.invisible,
        )
        self._receivers = Receivers(
            options,
            cluster=self._cluster,
            brokers=self._brokers,
            subscription=self._subscription,
            reporter=reporter,
            received=received,
            take=self.take,
        )
        self._deliver: Deliver[Message] | None = None
        self._paused = False
        self._delivering = True
        self._messages = 0
        self._link = Link.IDLE
        self._since_ns = time.time_ns()
        self._tasks: list[asyncio.Task[None]] = []
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
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._receivers.keep()), loop.create_task(self._receipts.keep())]
        self._judge_gate()
        await self._closed.wait()

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
        self._receipts.conclude(answered)
        if not self._receivers.open.is_set():
            self._judge_gate()
        return len(answered)

    def pause(self) -> None:
        """Ask for nothing more. Calls under way may still bring up to ``batch`` messages each."""
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
        if self._tasks:
            self._tasks[0].cancel()
        if await self._receivers.stop():
            # An answer may have been under way when its call was cancelled.
            await self._cluster.settled(_SETTLE)

    async def give_back(self) -> None:
        """Hand every unacked delivery back; what was answered before is seen through, too, as far as time allows."""
        self._delivering = False
        self._judge_gate()
        self._receipts.leaving = True
        unacked = [delivery for delivery in self._held if self._held.answer(delivery, DeliveryAnswer.NACK)]
        if unacked:
            self._reporter.report(events.MessagesReturned(group=self._group, topic=self._topic, count=len(unacked)))
        self._receipts.conclude(unacked)
        await self._see_through()

    async def close(self) -> None:
        """End what is under way, say goodbye and close the connections."""
        if self._link is Link.CLOSED:
            return
        await self.stop_intake()
        await self._see_through()
        self._set_link(Link.CLOSED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._acks.close()
        await self._receipts.close()
        self._cluster.change(Link.CLOSED)
        await self._cluster.close()
        self._closed.set()

    async def _see_through(self) -> None:
        """Wait for what was answered to be told to RocketMQ, for a bounded time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.give_back_timeout):
                await asyncio.sleep(0)  # acknowledgements of this turn of the loop are sent then
                while tasks := self._acks.tasks | self._receipts.tasks:
                    await asyncio.wait(tasks)

    def _refused(self, error: SinkError) -> None:
        self._receivers.refused(error)

    # -- what receivers see -----------------------------------------------------------------------------------------

    def take(self, broker: str, messages: list[Any], began_ns: int, fault: str | None = None) -> list[Message]:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        now, now_ns = time.monotonic_ns(), time.time_ns()
        arrival = Arrival(self, broker, now, began_ns + int(self._options.invisible * 1e9))
        limit = self._options.max_body_bytes
        take = self._held.take
        fresh: list[Delivery[Message]] = []
        taken: list[Message] = []
        for raw in messages:
            message = (
                read_message(raw, broker, now_ns, limit)
                if fault is None
                else read_without_body(raw, broker, now_ns, fault)
            )
            system = raw.system_properties
            delivery = ReceivedMessage(message, arrival, system.receipt_handle, system.queue_offset)
            taken.append(message)
            if take(delivery) is None:
                fresh.append(delivery)
        self._messages += len(fresh)
        if again := len(taken) - len(fresh):
            self._reporter.report(events.MessagesAgain(group=self._group, topic=self._topic, count=again))
        if not self._delivering:
            self._receipts.leaving = True
            self._answer(fresh, DeliveryAnswer.NACK)
        elif fresh:
            assert self._deliver is not None
            self._deliver(fresh)
        self._judge_gate()
        return taken

    # -- notes ------------------------------------------------------------------------------------------------------

    def _judge_gate(self) -> None:
        wanted = self._delivering and not self._paused and self._held.unacked < self._options.max_unacked
        if wanted and self._deliver is not None:
            self._receivers.open.set()
        else:
            self._receivers.open.clear()

    def _link_now(self) -> Link:
        if self._link in {Link.IDLE, Link.CLOSED}:
            return self._link
        receivers = self._receivers
        if receivers.working and self._cluster.link is Link.UP:
            return Link.UP
        return Link.BACKOFF if receivers.failing or self._cluster.link is Link.BACKOFF else Link.CONNECTING

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

    def _settings(self) -> Any:
        return self._subscription.command(self._cluster.addresses)

    @property
    def status(self) -> PeerStatus:
        """The connection as of now."""
        cluster, subscription = self._cluster, self._subscription
        self._set_link(self._link_now())
        return PeerStatus(
            name=self.name,
            link=self._link,
            since_ns=self._since_ns,
            last_error=self._receivers.failing or cluster.last_error,
            last_error_ns=cluster.last_error_ns,
            detail={
                "client_id": cluster.client_id,
                "group": self._group,
                "topic": self._topic,
                "filter": self._options.filter,
                "fifo": subscription.fifo,
                "endpoints": cluster.peers(),
                "brokers": self._receivers.brokers,
                "unacked": self._held.unacked,
                "held": len(self._held),
                "paused": self._paused,
                "delivering": self._delivering,
                "messages": self._messages,
                "telemetry_stream": cluster.stream_up,
            },
        )
