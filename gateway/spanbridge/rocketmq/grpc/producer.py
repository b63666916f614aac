"""The producer: a sink that sends to RocketMQ 5 over gRPC, on the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkUnavailable
from spanbridge.core.message import Destination
from spanbridge.core.retry import Backoff
from spanbridge.core.rocketmq_rules import MAX_BODY_BYTES
from spanbridge.ports import Link, PeerStatus, Reporter
from spanbridge.rocketmq.errors import CONNECTION_AT_FAULT
from spanbridge.rocketmq.events import TopicUnusable
from spanbridge.rocketmq.grpc.cluster import Cluster
from spanbridge.rocketmq.grpc.dispatch import Dispatcher
from spanbridge.rocketmq.grpc.encode import Encoder, MessageHead, type_of
from spanbridge.rocketmq.grpc.routes import ProxyRoute, addresses_of
from spanbridge.rocketmq.grpc.session import ClientRole, settings_command
from spanbridge.rocketmq.grpc.stubs import definition
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.options import RocketmqOptions

# What the cluster says when a route that was right is not any more.
_ROUTE_AT_FAULT = frozenset({
    "topic_not_found", "not_found", "forbidden", "no_writable_queue", "message_property_conflict_with_type",
})  # fmt: skip

_LONGEST_PAUSE = 60.0
"""Seconds between attempts that a server may ask for."""


class GrpcProducer:
    """Implements :class:`spanbridge.ports.Sink`. One for each cluster; belongs to the loop that starts it."""

    def __init__(self, options: RocketmqOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        role = ClientRole(definition.ClientType.PRODUCER, self._settings, self._on_settings)
        self._cluster = Cluster(options, role, reporter)
        self._encoder = Encoder(MessageIds(), options.namespace, options.ordered_partitions)
        self._dispatcher = Dispatcher(options, self._cluster.endpoint, self._retry, reporter)
        self._backoff = (options.backoff_initial, options.backoff_maximum, 2.0)
        self._check_types = True
        self._told = asyncio.Event()
        self._unusable: dict[str, str] = {}
        self._forbidden: set[str] = set()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_ok_ns: int | None = None

    def head(self, destination: Destination) -> MessageHead:
        """See :meth:`spanbridge.ports.Sink.head`."""
        return self._encoder.head(destination)

    def expect(self, topics: Sequence[str], kinds: Sequence[tuple[str, str]]) -> None:
        """Take these for the topics and their message types that are known in advance, in place of the options' own."""
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
            await self._check_type(route, type_of(partition))
            await self._dispatcher.send(route, partition, batch)
        except SinkError as error:
            cluster.note_error(str(error))
            self._doubt_route(topic, partition, error)
            raise
        else:
            self._last_ok_ns = time.time_ns()
            if self._forbidden:
                self._forbidden.discard(topic)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _doubt_route(self, topic: str, partition: int, error: SinkError) -> None:
        routes = self._cluster.routes
        if error.reason == "forbidden":
            self._forbidden.add(topic)
        if error.reason in _ROUTE_AT_FAULT:
            routes.invalidate(topic)
        elif isinstance(error, SinkUnavailable):
            # A broker that is away for a moment is missing in the route as well. Where groups are spread over several
            # queues they would move for that, and back: there, only the periodic refresh may find it.
            known = routes.known.get(topic)
            if known is not None and (partition < 0 or known.queues == 1):
                routes.suspect(topic)

    async def _check_type(self, route: ProxyRoute, kind: int) -> None:
        if kind in route.types:
            return
        # Whether that matters, the server's settings say. They may be on their way.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.request_timeout):
                await self._told.wait()
        if self._check_types:
            route.check(kind)

    async def probe(self) -> None:
        """See :meth:`spanbridge.ports.Sink.probe`: a heartbeat where messages would go, and a route from the cluster.

        The route is of a topic in use, or of one configured; without any the heartbeat has to do. Every topic that is
        configured has to be there and take what will be sent to it: the error names all that do not.
        """
        await self._check_topics()
        cluster = self._cluster
        route = next(iter(cluster.routes.known.values()), None)
        topic = route.topic if route is not None else next(iter(self._options.topics), None)
        if topic is not None:
            await cluster.query_route(topic)
        await cluster.heartbeat(addresses_of(route) if route is not None else cluster.addresses)
        if self._options.topics:
            await cluster.admitted()

    async def _check_topics(self) -> None:
        """Find what a message would find, and say so once.

        :raises SinkError: naming every topic that cannot be used, or because nobody answers.
        """
        reasons: dict[str, str] = {}
        for topic in self._options.topics:
            try:
                await self._check_topic(topic)
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

    async def _check_topic(self, topic: str) -> None:
        routes = self._cluster.routes
        route = await (routes.renew(topic) if topic in self._unusable else routes.get(topic))
        for named, kind in self._options.kinds:
            if named == topic:
                await self._check_type(route, definition.MessageType.Value(kind))

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
                "client_id": cluster.client_id,
                "endpoints": cluster.peers(),
                "topics": {
                    route.topic: {"queues": route.queues, "types": route.type_names}
                    for route in cluster.routes.known.values()
                },
                "in_flight": self._in_flight,
                "telemetry_stream": cluster.stream_up,
                "max_body_bytes": self._encoder.max_body_bytes,
                "last_ok_ns": self._last_ok_ns,
            },
        )

    def _settings(self) -> Any:
        """``TelemetryCommand`` with what this client publishes."""
        cluster = self._cluster
        command = settings_command(self._options, cluster.addresses, definition.ClientType.PRODUCER)
        publishing = command.settings.publishing
        publishing.max_body_size = MAX_BODY_BYTES
        publishing.validate_message_type = True
        # A proxy refuses them all for one topic that we may not publish to: what a device named must not do that.
        for topic in sorted({*self._options.topics, *(cluster.routes.known.keys() - self._forbidden)}):
            publishing.topics.add(name=topic, resource_namespace=self._options.namespace)
        return command

    def _on_settings(self, settings: Any) -> None:
        """Take over what the server prescribes: the largest body, types to be checked, pauses between attempts."""
        self._check_types = settings.publishing.validate_message_type
        self._told.set()
        if settings.publishing.max_body_size > 0:
            self._encoder.max_body_bytes = settings.publishing.max_body_size
            self._dispatcher.max_request_bytes = settings.publishing.max_body_size
        policy = settings.backoff_policy.exponential_backoff
        initial, maximum = policy.initial.ToMilliseconds() / 1000, policy.max.ToMilliseconds() / 1000
        if 0 < initial <= maximum:
            # It may slow us down, and not for ever; what is no sensible factor would overflow.
            self._backoff = (min(initial, _LONGEST_PAUSE), min(maximum, _LONGEST_PAUSE), _factor(policy.multiplier))

    def _retry(self) -> Backoff:
        return Backoff(*self._backoff)


def _factor(multiplier: float) -> float:
    return min(max(1.0, multiplier), 16.0)  # in this order, "not a number" is 1
