"""The consumer: a source that receives from RocketMQ 5 over gRPC, on the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError, bare
from spanbridge.core.message import Message
from spanbridge.core.retry import Backoff
from spanbridge.ports import Acked, Deliver, Link, PeerStatus, Received, Released, Reporter
from spanbridge.rocketmq import receive_events as events
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.grpc.acks import Acks
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.cluster import Cluster
from spanbridge.rocketmq.grpc.decode import read_message
from spanbridge.rocketmq.grpc.held import Arrival, DeliveryAnswer, Held, ReceivedMessage
from spanbridge.rocketmq.grpc.receipts import Receipts
from spanbridge.rocketmq.grpc.receive import Receiver
from spanbridge.rocketmq.grpc.session import ClientRole
from spanbridge.rocketmq.grpc.subscription import CLIENT_TYPE, GroupSubscription
from spanbridge.rocketmq.options import ConsumerOptions

_SETTLE = 1.0
"""Seconds for a proxy to answer a ping."""
_LOOK = 1.0
"""Seconds between looks at the route, which is refreshed elsewhere."""


class GrpcConsumer:
    """Implements :class:`spanbridge.ports.QueueSource`. Made by :func:`spanbridge.rocketmq.create_consumer`."""

    def __init__(self, options: ConsumerOptions, reporter: Reporter, received: Received, acked: Acked) -> None:
        self.open = asyncio.Event()
        """Set while messages are wanted."""
        self._options = options
        self._reporter = reporter
        self._received = received
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
        self._receivers: dict[str, Receiver] = {}
        self._failing: dict[str, str] = {}
        self._working: set[str] = set()
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
        self._tasks = [loop.create_task(self._keep_receivers()), loop.create_task(self._receipts.keep())]
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
        if not self.open.is_set():
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
        receivers, self._receivers = self._receivers, {}
        if self._tasks:
            self._tasks[0].cancel()
        await asyncio.gather(*(receiver.stop() for receiver in receivers.values()))
        if receivers:
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

    # -- what receivers see -----------------------------------------------------------------------------------------

    def take(self, broker: str, messages: list[Any], began_ns: int) -> list[Message]:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        now, now_ns = time.monotonic_ns(), time.time_ns()
        arrival = Arrival(self, broker, now, began_ns + int(self._options.invisible * 1e9))
        limit = self._options.max_body_bytes
        take = self._held.take
        fresh: list[Delivery[Message]] = []
        taken: list[Message] = []
        for raw in messages:
            message = read_message(raw, broker, now_ns, limit)
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

    def _refused(self, error: SinkError) -> None:
        self.fails("", error, self._options.cluster.heartbeat_interval)

    def works(self, broker: str) -> None:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        over = [part for part in ("", broker) if self._failing.pop(part, None) is not None]
        if broker not in self._working:
            self._working.add(broker)
            over = [*over, broker] if broker not in over else over
        for part in over:
            self._reporter.report(events.ReceiveWorks(group=self._group, topic=self._topic, broker=part))

    def fails(self, broker: str, error: SinkError, retry_in: float) -> None:
        """See :class:`spanbridge.rocketmq.grpc.receive.Inbox`."""
        self._working.discard(broker)
        self._failing[broker] = str(error)
        self._cluster.note_error(str(error))
        self._reporter.report(
            events.ReceiveFailed(
                group=self._group, topic=self._topic, broker=broker, reason=error.reason, cause=str(error),
                retry_in=retry_in,
            )
        )  # fmt: skip
        self._cluster.routes.suspect(self._topic)

    # -- the route --------------------------------------------------------------------------------------------------

    async def _keep_receivers(self) -> None:
        """One receiver for each broker of the route."""
        backoff = Backoff(self._options.backoff_initial, self._options.backoff_maximum)
        while True:
            pause = _LOOK
            with guarded("receivers", self._reporter):
                try:
                    route = await self._cluster.routes.get(self._topic)
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
            self._working.discard(broker)
            self._failing.pop(broker, None)
            await self._receivers.pop(broker).stop()

    # -- notes ------------------------------------------------------------------------------------------------------

    def _judge_gate(self) -> None:
        wanted = self._delivering and not self._paused and self._held.unacked < self._options.max_unacked
        if wanted and self._deliver is not None:
            self.open.set()
        else:
            self.open.clear()

    def _link_now(self) -> Link:
        if self._link in {Link.IDLE, Link.CLOSED}:
            return self._link
        if self._working and self._cluster.link is Link.UP:
            return Link.UP
        return Link.BACKOFF if self._failing or self._cluster.link is Link.BACKOFF else Link.CONNECTING

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
        failing = next(iter(self._failing.values()), None)
        return PeerStatus(
            name=self.name,
            link=self._link,
            since_ns=self._since_ns,
            last_error=failing or cluster.last_error,
            last_error_ns=cluster.last_error_ns,
            detail={
                "client_id": cluster.client_id,
                "group": self._group,
                "topic": self._topic,
                "filter": self._options.filter,
                "fifo": subscription.fifo,
                "endpoints": cluster.peers(),
                "brokers": {broker: broker in self._working for broker in self._receivers},
                "unacked": self._held.unacked,
                "held": len(self._held),
                "paused": self._paused,
                "delivering": self._delivering,
                "messages": self._messages,
                "telemetry_stream": cluster.stream_up,
            },
        )
