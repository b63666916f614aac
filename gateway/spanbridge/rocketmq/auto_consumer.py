"""The consumer of ``protocol = "auto"``: it begins once the cluster's protocol is known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError
from spanbridge.core.message import Message
from spanbridge.core.retry import Backoff
from spanbridge.ports import Deliver, Link, PeerStatus, QueueSource, Released, Reporter
from spanbridge.rocketmq.auto import FIRST_PAUSE, LONGEST_PAUSE
from spanbridge.rocketmq.cluster_link import ClusterLink
from spanbridge.rocketmq.events import ProtocolUnknown
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.protocols import ClusterProtocol


class AutoConsumer:
    """Implements :class:`spanbridge.ports.QueueSource` by the consumer of the protocol that was found.

    ``make`` makes that. Deliveries come from it alone, so it is there when one is answered.
    """

    def __init__(
        self,
        options: ConsumerOptions,
        reporter: Reporter,
        protocol: ClusterProtocol,
        make: Callable[[ConsumerOptions], QueueSource[Message]],
    ) -> None:
        self._options = options
        self._reporter = reporter
        self._protocol = protocol
        self._make = make
        self._made: QueueSource[Message] | None = None
        self._looking: asyncio.Task[QueueSource[Message]] | None = None
        self._state = ClusterLink()
        self._paused = False
        self._delivering = True
        self._closing = False

    @property
    def name(self) -> str:
        """The configured name of the cluster's connection."""
        return self._options.cluster.name

    @property
    def unacked(self) -> int:
        """Deliveries answered by none of ack, nack and reject."""
        return 0 if self._made is None else self._made.unacked

    @property
    def held(self) -> int:
        """Deliveries in our hands."""
        return 0 if self._made is None else self._made.held

    @property
    def held_bytes(self) -> int:
        """What those take in memory, in bytes, about."""
        return 0 if self._made is None else self._made.held_bytes

    def oldest_ns(self) -> int | None:
        """When the oldest unacked delivery arrived (monotonic, ns)."""
        return None if self._made is None else self._made.oldest_ns()

    def unrepeatable(self) -> list[Delivery[Message]]:
        """None: RocketMQ keeps what is not acknowledged."""
        return []

    async def run(self, deliver: Deliver[Message], released: Released) -> None:
        """Find the protocol, then receive until :meth:`close`. One call per source.

        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        if self._state.link is not Link.IDLE:
            return
        self._state.change(Link.CONNECTING)
        self._looking = asyncio.get_running_loop().create_task(self._look())
        await asyncio.wait([self._looking])
        if self._closing:  # whether that cancelled it, or came too late
            return
        made = self._made = self._looking.result()
        if self._paused:
            made.pause()
        if not self._delivering:
            await made.stop_intake()
        await made.run(deliver, released)

    async def _look(self) -> QueueSource[Message]:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        cluster = self._options.cluster
        while True:
            try:
                spoken = await self._protocol.find(cluster, self._reporter)
                made = replace(self._options, cluster=cluster.speaking(spoken))
                return await asyncio.to_thread(self._make, made)  # loads protobuf
            except SinkError as failure:
                self._state.change(Link.BACKOFF)
                self._state.note_error(str(failure))
                self._reporter.report(ProtocolUnknown(reason=failure.reason, cause=str(failure)))
            await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter

    def ack(self, deliveries: Sequence[Delivery[Message]]) -> None:
        """See :meth:`spanbridge.ports.Source.ack`."""
        if self._made is not None:
            self._made.ack(deliveries)

    def nack(self, deliveries: Sequence[Delivery[Message]], cause: str) -> None:
        """See :meth:`spanbridge.ports.Source.nack`."""
        if self._made is not None:
            self._made.nack(deliveries, cause)

    def reject(self, deliveries: Sequence[Delivery[Message]], cause: str) -> None:
        """See :meth:`spanbridge.ports.QueueSource.reject`."""
        if self._made is not None:
            self._made.reject(deliveries, cause)

    def pause(self) -> None:
        """See :meth:`spanbridge.ports.Source.pause`."""
        self._paused = True
        if self._made is not None:
            self._made.pause()

    def resume(self) -> None:
        """See :meth:`spanbridge.ports.Source.resume`."""
        self._paused = False
        if self._made is not None:
            self._made.resume()

    async def stop_intake(self) -> None:
        """See :meth:`spanbridge.ports.Source.stop_intake`."""
        self._delivering = False
        if self._made is not None:
            await self._made.stop_intake()

    async def give_back(self) -> None:
        """See :meth:`spanbridge.ports.QueueSource.give_back`."""
        self._delivering = False
        if self._made is not None:
            await self._made.give_back()

    async def close(self) -> None:
        """See :meth:`spanbridge.ports.Source.close`."""
        self._closing = True
        self._state.change(Link.CLOSED)
        if self._made is not None:
            await self._made.close()
        elif self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    @property
    def status(self) -> PeerStatus:
        """See :attr:`spanbridge.ports.Source.status`."""
        if self._made is not None:
            return self._made.status
        return PeerStatus(
            name=self.name,
            link=self._state.link,
            since_ns=self._state.since_ns,
            last_error=self._state.last_error,
            last_error_ns=self._state.last_error_ns,
            detail={"protocol": "auto", "group": self._options.group, "topic": self._options.topic},
        )
