"""The sink of ``protocol = "auto"``: it takes messages before it knows which protocol they go by.

Until then messages are encoded as for brokers (``remoting``), which loads no protobuf. Should the endpoints turn out to
be proxies, those few are encoded again when they are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from spanbridge.core.errors import SinkError
from spanbridge.core.message import Destination
from spanbridge.ports import Head, PeerStatus, Reporter
from spanbridge.rocketmq.client_search import ClientSearch
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.options import RocketmqOptions
from spanbridge.rocketmq.protocols import ClusterProtocol
from spanbridge.rocketmq.remoting.encode import RemotingEncoder, RemotingHead, read_back

if TYPE_CHECKING:
    from spanbridge.rocketmq.grpc.producer import GrpcProducer
    from spanbridge.rocketmq.remoting.producer import RemotingProducer

    MadeProducer = GrpcProducer | RemotingProducer


class EarlyMessage(bytes):
    """A message as it is encoded while the protocol is not known."""


class AutoProducer:
    """Implements :class:`spanbridge.ports.Sink` by the producer of the protocol that was found.

    ``make`` makes that. One for each cluster; belongs to the loop that starts it.
    """

    def __init__(
        self,
        options: RocketmqOptions,
        reporter: Reporter,
        protocol: ClusterProtocol,
        make: Callable[[RocketmqOptions, Reporter], MadeProducer],
    ) -> None:
        self._options = options
        self._reporter = reporter
        self._protocol = protocol
        self._make = make
        self._encoder = RemotingEncoder(MessageIds(), options.namespace, options.ordered_partitions)
        self._search: ClientSearch[MadeProducer] = ClientSearch(self._find, reporter)

    @property
    def made(self) -> MadeProducer | None:
        """The producer of the protocol that was found."""
        return self._search.made

    def head(self, destination: Destination) -> AutoHead:
        """See :meth:`spanbridge.ports.Sink.head`."""
        return AutoHead(self, destination, self._encoder.head(destination))

    def expect(self, topics: Sequence[str], kinds: Sequence[tuple[str, str]]) -> None:
        """Take these for the topics that are known in advance, each with the message type that it will be sent."""
        self._options = self._options.expecting(topics, kinds)
        if self.made is not None:
            self.made.expect(topics, kinds)

    async def start(self) -> None:
        """Begin to ask. Returns at once."""
        self._search.begin()

    async def _find(self) -> MadeProducer:
        spoken = await self._protocol.find(self._options, self._reporter)
        made = await asyncio.to_thread(self._make, self._options.speaking(spoken), self._reporter)  # loads protobuf
        made.expect(self._options.topics, self._options.kinds)
        try:
            await made.start()
        except SinkError:
            await made.close()
            raise
        return made

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        made = self.made or await self._search.client()
        if self._protocol.found == "grpc":
            batch = [message if type(message) is bytes else again(made, topic, partition, message) for message in batch]
        await made.send(topic, partition, batch)

    async def probe(self) -> None:
        """See :meth:`spanbridge.ports.Sink.probe`."""
        await (await self._search.client()).probe()

    async def close(self) -> None:
        """See :meth:`spanbridge.ports.Sink.close`."""
        await self._search.close()
        if self.made is not None:
            await self.made.close()

    @property
    def status(self) -> PeerStatus:
        """See :attr:`spanbridge.ports.Sink.status`."""
        if self.made is not None:
            return self.made.status
        return PeerStatus(
            name=self._options.name,
            link=self._search.link,
            since_ns=self._search.since_ns,
            last_error=self._search.last_error,
            last_error_ns=self._search.last_error_ns,
            detail={"protocol": "auto", "endpoints": {}, "topics": {}},
        )


class AutoHead:
    """Implements :class:`spanbridge.ports.Head`: by ``early`` while the protocol is not known, then by its own head.

    The partition is that of ``early``, whatever is found: who keeps a head has looked at it.
    """

    __slots__ = ("_destination", "_early", "_head", "_sink", "partition")

    def __init__(self, sink: AutoProducer, destination: Destination, early: RemotingHead) -> None:
        self.partition = early.partition
        self._sink = sink
        self._destination = destination
        self._early = early
        self._head: Head | None = None

    def encode(self, body: bytes, traceparent: str, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        """See :meth:`spanbridge.ports.Head.encode`."""
        head = self._head
        if head is None:
            made = self._sink.made
            if made is None:
                return EarlyMessage(self._early.encode(body, traceparent, properties, born_ns))
            head = self._head = made.head(self._destination)
        return head.encode(body, traceparent, properties, born_ns)


def again(made: MadeProducer, topic: str, partition: int, message: bytes) -> bytes:
    """An early message in the producer's own form. It gets another id: nobody has seen the first.

    :raises SinkRejected: the protocol does not take it.
    """
    destination, body, properties, born_ns = read_back(topic, message, grouped=partition >= 0)
    return made.head(destination).encode(body, "", properties, born_ns)
