"""The sink of ``protocol = "auto"``: it takes messages before it knows which protocol they go by.

Until then messages are encoded as for brokers (``remoting``), which loads no protobuf. Should the endpoints turn out to
be proxies, those few are encoded again when they are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from spanbridge.core.errors import SinkError, SinkUnavailable, bare
from spanbridge.core.message import Destination
from spanbridge.core.retry import Backoff
from spanbridge.ports import Head, Link, PeerStatus, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.cluster_link import ClusterLink
from spanbridge.rocketmq.events import ProtocolUnknown
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.options import RocketmqOptions
from spanbridge.rocketmq.protocols import ClusterProtocol
from spanbridge.rocketmq.remoting.encode import RemotingEncoder, RemotingHead, read_back

if TYPE_CHECKING:
    from spanbridge.rocketmq.grpc.producer import GrpcProducer
    from spanbridge.rocketmq.remoting.producer import RemotingProducer

    MadeProducer = GrpcProducer | RemotingProducer

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
"""Seconds before endpoints are asked again."""


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
        self.made: MadeProducer | None = None
        self._options = options
        self._reporter = reporter
        self._protocol = protocol
        self._make = make
        self._encoder = RemotingEncoder(MessageIds(), options.namespace, options.ordered_partitions)
        self._attempt: asyncio.Task[SinkError | None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._state = ClusterLink()

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
        if self._state.link is Link.IDLE:
            self._state.change(Link.CONNECTING)
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            with guarded("protocol", self._reporter), contextlib.suppress(SinkError):
                await self._producer()
            if self.made is not None:
                return
            await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter

    async def _producer(self) -> MadeProducer:
        """The producer of the protocol that was found; all who wait share one attempt to find it, and its failure.

        :raises SinkError: no endpoint says.
        """
        if self.made is None:
            if self._state.link in {Link.IDLE, Link.CLOSED}:
                raise SinkUnavailable(f"the RocketMQ sink is {self._state.link.value}", reason="closed")
            if self._attempt is None:
                self._attempt = asyncio.get_running_loop().create_task(self._find())
                self._attempt.add_done_callback(self._attempted)
            attempt = self._attempt
            await asyncio.wait([attempt])
            if attempt.cancelled():
                raise SinkUnavailable("the RocketMQ sink is closed", reason="closed")
            if (failure := attempt.result()) is not None:
                raise type(failure)(str(failure), reason=failure.reason)
        assert self.made is not None
        return self.made

    async def _find(self) -> SinkError | None:
        """Make the producer, or return why not: an exception that nobody waits for any more would be logged."""
        made: MadeProducer | None = None
        try:
            spoken = await self._protocol.find(self._options, self._reporter)
            made = await asyncio.to_thread(self._make, self._options.speaking(spoken), self._reporter)  # loads protobuf
            made.expect(self._options.topics, self._options.kinds)
            await made.start()
        except SinkError as failure:
            if made is not None:
                await made.close()
            self._state.change(Link.BACKOFF)
            self._state.note_error(str(failure))
            self._reporter.report(ProtocolUnknown(reason=failure.reason, cause=str(failure)))
            return bare(failure)
        self.made = made
        return None

    def _attempted(self, done: asyncio.Task[SinkError | None]) -> None:
        self._attempt = None
        if not done.cancelled():
            done.exception()  # those who wait may be gone: then nobody else looks at it

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        made = self.made or await self._producer()
        if self._protocol.found == "grpc":
            batch = [message if type(message) is bytes else again(made, topic, partition, message) for message in batch]
        await made.send(topic, partition, batch)

    async def probe(self) -> None:
        """See :meth:`spanbridge.ports.Sink.probe`."""
        await (await self._producer()).probe()

    async def close(self) -> None:
        """See :meth:`spanbridge.ports.Sink.close`."""
        self._state.change(Link.CLOSED)
        tasks = [task for task in (self._looking, self._attempt) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.made is not None:
            await self.made.close()

    @property
    def status(self) -> PeerStatus:
        """See :attr:`spanbridge.ports.Sink.status`."""
        if self.made is not None:
            return self.made.status
        return PeerStatus(
            name=self._options.name,
            link=self._state.link,
            since_ns=self._state.since_ns,
            last_error=self._state.last_error,
            last_error_ns=self._state.last_error_ns,
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
