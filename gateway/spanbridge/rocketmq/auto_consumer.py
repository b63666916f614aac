"""The consumer of ``protocol = "auto"``: it begins once the cluster's protocol is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Message
from spanbridge.ports import Deliver, Link, PeerStatus, QueueSource, Released, Reporter
from spanbridge.rocketmq.client_search import ClientSearch
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
        self._search = ClientSearch(self._find, reporter)
        self._paused = False
        self._delivering = True

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
        if self._search.link is not Link.IDLE:
            return
        self._search.begin()
        made = await self._search.found()
        if made is None:  # closed meanwhile
            return
        self._made = made
        if self._paused:
            made.pause()
        if not self._delivering:
            await made.stop_intake()
        await made.run(deliver, released)

    async def _find(self) -> QueueSource[Message]:
        cluster = self._options.cluster
        spoken = await self._protocol.find(cluster, self._reporter)
        made = replace(self._options, cluster=cluster.speaking(spoken))
        return await asyncio.to_thread(self._make, made)  # loads protobuf

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
        await self._search.close()
        if self._made is not None:
            await self._made.close()

    @property
    def status(self) -> PeerStatus:
        """See :attr:`spanbridge.ports.Source.status`."""
        if self._made is not None:
            return self._made.status
        return PeerStatus(
            name=self.name,
            link=self._search.link,
            since_ns=self._search.since_ns,
            last_error=self._search.last_error,
            last_error_ns=self._search.last_error_ns,
            detail={"protocol": "auto", "group": self._options.group, "topic": self._options.topic},
        )
