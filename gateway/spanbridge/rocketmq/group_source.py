"""What a source of a consumer group is by whatever protocol it receives: answers, the gate, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Message
from spanbridge.ports import Deliver, Link, PeerStatus, Released, Reporter
from spanbridge.rocketmq import receive_events as events
from spanbridge.rocketmq.cluster_link import ClusterLink
from spanbridge.rocketmq.held import DeliveryAnswer, Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions, RocketmqOptions


class SourceCluster(Protocol):
    """The connections that a source receives on."""

    client_id: str
    link: Link
    last_error: str | None
    last_error_ns: int

    async def start(self) -> None:
        """Connect. Returns at once."""

    async def close(self) -> None:
        """Say goodbye and close the connections."""

    def change(self, link: Link) -> None:
        """Enter a state."""

    def peers(self) -> Any:
        """The endpoints, for /status."""


C = TypeVar("C", bound=SourceCluster)


class GroupSource(ABC, Generic[C]):
    """The part of :class:`spanbridge.ports.QueueSource` that both protocols share.

    ``_open`` is set while messages are wanted.
    """

    def __init__(self, options: ConsumerOptions, cluster: C, reporter: Reporter) -> None:
        self._options = options
        self._cluster = cluster
        self._reporter = reporter
        self._held = Held()
        self._open = asyncio.Event()
        self._deliver: Deliver[Message] | None = None
        self._paused = False
        self._delivering = True
        self._messages = 0
        self._state = ClusterLink()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = asyncio.Event()

    # -- what the protocols do differently --------------------------------------------------------------------------

    @abstractmethod
    def _begin(self) -> None:
        """Start receiving, in ``_tasks``. The cluster has been started."""

    @abstractmethod
    def _conclude(self, deliveries: Sequence[ReceivedMessage]) -> None:
        """Carry out the answers to these. Never raises."""

    @abstractmethod
    def _concluding(self) -> Collection[asyncio.Task[None]]:
        """Requests under way that carry out answers."""

    @abstractmethod
    def _leave(self) -> None:
        """From now on what is nacked is to come again at once: we are about to go."""

    @abstractmethod
    async def stop_intake(self) -> None:
        """Deliver nothing more. What still comes is handed back at once."""

    @abstractmethod
    async def _end(self) -> None:
        """End what carries out answers. Receiving has ended."""

    @property
    @abstractmethod
    def _works(self) -> bool:
        """Whether messages come from a broker, or would if there were any."""

    @property
    @abstractmethod
    def _failing(self) -> str | None:
        """Why none comes from some broker."""

    @abstractmethod
    def _detail(self) -> dict[str, Any]:
        """What only this protocol has to tell on /status."""

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
        if self._over:
            return
        self._state.change(Link.CONNECTING)
        await self._cluster.start()
        if self._over:  # meanwhile
            return
        self._begin()
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
        self._conclude(answered)
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

    async def give_back(self) -> None:
        """Hand every unacked delivery back; what was answered before is seen through, too, as far as time allows."""
        self._delivering = False
        self._judge_gate()
        self._leave()
        unacked = [delivery for delivery in self._held if self._held.answer(delivery, DeliveryAnswer.NACK)]
        if unacked:
            self._reporter.report(events.MessagesReturned(group=self._group, topic=self._topic, count=len(unacked)))
        self._conclude(unacked)
        await self._see_through()

    async def close(self) -> None:
        """End what is under way, say goodbye and close the connections."""
        if self._state.link is Link.CLOSED:
            return
        await self.stop_intake()
        await self._see_through()
        self._state.change(Link.CLOSED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end()
        self._cluster.change(Link.CLOSED)
        await self._cluster.close()
        self._closed.set()

    async def _see_through(self) -> None:
        """Wait for what was answered to be told to RocketMQ, for a bounded time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.give_back_timeout):
                await asyncio.sleep(0)  # acknowledgements of this turn of the loop are sent then
                while tasks := self._concluding():
                    await asyncio.wait(tasks)

    # -- what has come ----------------------------------------------------------------------------------------------

    def _hand_over(self, fresh: list[Delivery[Message]], taken: int) -> None:
        """Deliver those of the ``taken`` messages that are not in our hands already."""
        self._messages += len(fresh)
        if again := taken - len(fresh):
            self._reporter.report(events.MessagesAgain(group=self._group, topic=self._topic, count=again))
        if not self._delivering:
            self._leave()
            self._answer(fresh, DeliveryAnswer.NACK)
        elif fresh:
            assert self._deliver is not None
            self._deliver(fresh)
        self._judge_gate()

    # -- notes ------------------------------------------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return self._state.link is Link.CLOSED

    def _judge_gate(self) -> None:
        wanted = self._delivering and not self._paused and self._held.unacked < self._options.max_unacked
        if wanted and self._deliver is not None:
            self._open.set()
        else:
            self._open.clear()

    def _link_now(self) -> Link:
        if self._state.link in {Link.IDLE, Link.CLOSED}:
            return self._state.link
        if self._works and self._cluster.link is Link.UP:
            return Link.UP
        return Link.BACKOFF if self._failing or self._cluster.link is Link.BACKOFF else Link.CONNECTING

    @property
    def _group(self) -> str:
        return self._options.group

    @property
    def _topic(self) -> str:
        return self._options.topic

    @property
    def status(self) -> PeerStatus:
        """The connection as of now."""
        cluster = self._cluster
        self._state.change(self._link_now())
        return PeerStatus(
            name=self.name,
            link=self._state.link,
            since_ns=self._state.since_ns,
            last_error=self._failing or cluster.last_error,
            last_error_ns=cluster.last_error_ns,
            detail={
                "client_id": cluster.client_id,
                "group": self._group,
                "topic": self._topic,
                "filter": self._options.filter,
                "endpoints": cluster.peers(),
                "unacked": self._held.unacked,
                "held": len(self._held),
                "paused": self._paused,
                "delivering": self._delivering,
                "messages": self._messages,
                **self._detail(),
            },
        )


def receiving(options: ConsumerOptions) -> RocketmqOptions:
    """The connection of a consumer: to the cluster of its topic, to which it sends nothing."""
    return replace(options.cluster, topics=(options.topic,), kinds=())
