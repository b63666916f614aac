"""The producer without a proxy: a sink that sends to RocketMQ's brokers, on the caller's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkUnavailable
from spanbridge.core.message import Destination
from spanbridge.core.rocketmq_rules import MAX_BODY_BYTES
from spanbridge.ports import Link, PeerStatus, Reporter
from spanbridge.rocketmq.errors import CONNECTION_AT_FAULT
from spanbridge.rocketmq.events import TopicUnusable
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.options import RocketmqOptions
from spanbridge.rocketmq.remoting.cluster import RemotingCluster, RemotingRole
from spanbridge.rocketmq.remoting.dispatch import RemotingDispatcher
from spanbridge.rocketmq.remoting.encode import RemotingEncoder, RemotingHead
from spanbridge.rocketmq.remoting.routes import read_send_route
from spanbridge.rocketmq.remoting.send import heartbeat, unregister

# What a broker says when a route that was right is not any more.
_ROLE = RemotingRole(read_route=read_send_route, heartbeat=heartbeat, goodbye=unregister)
_ROUTE_AT_FAULT = frozenset({"topic_not_found", "forbidden", "no_writable_queue"})


class RemotingProducer:
    """Implements :class:`spanbridge.ports.Sink`. One for each cluster; belongs to the loop that starts it."""

    def __init__(self, options: RocketmqOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._cluster = cluster = RemotingCluster(options, _ROLE, reporter)
        self._encoder = RemotingEncoder(
            MessageIds(), options.namespace, options.ordered_partitions, options.compress_above
        )
        self._dispatcher = RemotingDispatcher(
            options, cluster.endpoint, cluster.routes.known, cluster.client_id, reporter
        )
        self._unusable: dict[str, str] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_ok_ns: int | None = None

    def head(self, destination: Destination) -> RemotingHead:
        """See :meth:`spanbridge.ports.Sink.head`."""
        return self._encoder.head(destination)

    def expect(self, topics: Sequence[str], kinds: Sequence[tuple[str, str]]) -> None:
        """Take these for the topics that are known in advance. Brokers do not look at message types."""
        self._options = self._options.expecting(topics, kinds)
        self._unusable = {topic: cause for topic, cause in self._unusable.items() if topic in self._options.topics}

    async def start(self) -> None:
        """See :meth:`spanbridge.ports.Sink.start`.

        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        if self._cluster.link is Link.IDLE:
            await self._cluster.start()

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        cluster = self._cluster
        if cluster.link in {Link.IDLE, Link.CLOSED}:
            raise SinkUnavailable(f"the RocketMQ sink is {cluster.link.value}", reason="closed")
        self._in_flight += 1
        self._idle.clear()
        try:
            route = await cluster.routes.get(topic)
            await self._dispatcher.send(route, partition, batch)
        except SinkError as error:
            cluster.note_error(str(error))
            self._doubt_route(topic, partition, error)
            raise
        else:
            self._last_ok_ns = time.time_ns()
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _doubt_route(self, topic: str, partition: int, error: SinkError) -> None:
        routes = self._cluster.routes
        if error.reason in _ROUTE_AT_FAULT:
            routes.invalidate(topic)
        elif isinstance(error, SinkUnavailable):
            # A broker that is away for a moment is missing in the route as well. Groups would move for that, and back:
            # where they are spread over brokers, only the periodic refresh may find it.
            known = routes.known.get(topic)
            if known is not None and (partition < 0 or len(known.masters) == 1):
                routes.suspect(topic)

    async def probe(self) -> None:
        """See :meth:`spanbridge.ports.Sink.probe`: a route from a name server, and a heartbeat where messages would go.

        Every topic that is configured has to be there: the error names all that are not.
        """
        await self._check_topics()
        cluster = self._cluster
        topic = next(iter(cluster.routes.known), next(iter(self._options.topics), None))
        if topic is not None:
            await cluster.heartbeat((await cluster.query_route(topic)).addresses)
        else:
            await cluster.heartbeat(tuple((await cluster.brokers()).values()))

    async def _check_topics(self) -> None:
        """Find what a message would find, and say so once.

        :raises SinkError: naming every topic that cannot be used, or because nobody answers.
        """
        routes = self._cluster.routes
        reasons: dict[str, str] = {}
        for topic in self._options.topics:
            try:
                await (routes.renew(topic) if topic in self._unusable else routes.get(topic))
            except SinkMisconfigured as error:
                if error.reason in CONNECTION_AT_FAULT:
                    raise  # the endpoint has told it, once for all topics
                reasons[topic] = error.reason
                if self._unusable.get(topic) != str(error):
                    self._unusable[topic] = str(error)
                    self._reporter.report(TopicUnusable(topic=topic, reason=error.reason, cause=str(error)))
            else:
                self._unusable.pop(topic, None)
        if reasons:
            text = " ".join(self._unusable.get(topic, topic) for topic in reasons)
            raise SinkMisconfigured(text, reason=next(iter(reasons.values())))

    async def close(self) -> None:
        """See :meth:`spanbridge.ports.Sink.close`."""
        if self._cluster.link is Link.CLOSED:
            return
        self._cluster.change(Link.CLOSED)
        await self._idle.wait()  # every request has a deadline
        await self._cluster.close()

    @property
    def status(self) -> PeerStatus:
        """See :attr:`spanbridge.ports.Sink.status`."""
        cluster = self._cluster
        return PeerStatus(
            name=self._options.name,
            link=cluster.link,
            since_ns=cluster.since_ns,
            last_error=cluster.last_error,
            last_error_ns=cluster.last_error_ns,
            detail={
                "protocol": "remoting",
                "client_id": cluster.client_id,
                "endpoints": cluster.peers(),
                "topics": {
                    route.topic: {"queues": len(route.queues), "types": [], "brokers": dict(route.masters)}
                    for route in cluster.routes.known.values()
                },
                "in_flight": self._in_flight,
                "max_body_bytes": MAX_BODY_BYTES,
                "last_ok_ns": self._last_ok_ns,
            },
        )
