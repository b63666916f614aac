"""The sink: RocketMQ 5 over gRPC on the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import grpc

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkThrottled, SinkUnavailable
from spanbridge.core.message import Destination
from spanbridge.core.retry import Backoff
from spanbridge.ports import Link, PeerStatus, Reporter
from spanbridge.rocketmq.events import TopicUnusable
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.grpc.dispatch import Dispatcher, addresses_of
from spanbridge.rocketmq.grpc.encode import Encoder, MessageHead, type_of
from spanbridge.rocketmq.grpc.endpoint import Endpoint, load_credentials
from spanbridge.rocketmq.grpc.ids import MessageIds, client_id
from spanbridge.rocketmq.grpc.routes import TopicRoute, TopicRoutes, read_route
from spanbridge.rocketmq.grpc.session import ClientSession, access_point, settings_command
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.options import RocketmqOptions

# What the cluster says when a route that was right is not any more.
_ROUTE_AT_FAULT = frozenset({
    "topic_not_found", "not_found", "forbidden", "no_writable_queue", "message_property_conflict_with_type",
})  # fmt: skip

_LAST_WORDS = 0.05
"""Seconds."""
_LONGEST_PAUSE = 60.0
"""Seconds between attempts that a server may ask for."""


class GrpcProducer:
    """Implements :class:`spanbridge.ports.Sink`. One for each cluster; belongs to the loop that starts it."""

    def __init__(self, options: RocketmqOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._addresses = parse_endpoints(options.endpoints)
        self._client_id = client_id()
        self._headers = Credentials(options, self._client_id)
        self._encoder = Encoder(MessageIds(), options.namespace, options.ordered_partitions)
        self._tls: grpc.ChannelCredentials | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._sessions: dict[str, ClientSession] = {}
        self._routes = TopicRoutes(self._query_route, reporter)
        self._dispatcher = Dispatcher(options, self._endpoint, self._retry, reporter)
        self._backoff = (options.backoff_initial, options.backoff_maximum, 2.0)
        self._tasks: list[asyncio.Task[None]] = []
        self._unnamed: set[str] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._check_types = True
        self._told = asyncio.Event()
        self._unusable: dict[str, str] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._link = Link.IDLE
        self._since_ns = time.time_ns()
        self._last_ok_ns: int | None = None
        self._last_error: str | None = None

    def head(self, destination: Destination) -> MessageHead:
        """See :meth:`spanbridge.ports.Sink.head`."""
        return self._encoder.head(destination)

    async def start(self) -> None:
        """See :meth:`spanbridge.ports.Sink.start`.

        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        if self._link is not Link.IDLE:
            return
        if self._options.tls is not None:
            self._tls = await asyncio.to_thread(load_credentials, self._options.tls)
        self._change(Link.CONNECTING)
        for address in self._addresses:
            self._endpoint(address)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._warm_up()), loop.create_task(self._keep_routes())]

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        if self._link in {Link.IDLE, Link.CLOSED}:
            raise SinkUnavailable(f"the RocketMQ sink is {self._link.value}", reason="closed")
        self._in_flight += 1
        self._idle.clear()
        try:
            route = await self._routes.get(topic)
            await self._check_type(route, type_of(partition))
            await self._dispatcher.send(route, partition, batch)
        except SinkError as error:
            self._last_error = str(error)
            self._doubt_route(topic, partition, error)
            raise
        else:
            self._last_ok_ns = time.time_ns()
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _doubt_route(self, topic: str, partition: int, error: SinkError) -> None:
        if error.reason in _ROUTE_AT_FAULT:
            self._routes.invalidate(topic)
        elif isinstance(error, SinkUnavailable):
            # A broker that is away for a moment is missing in the route as well. Where groups are spread over several
            # queues they would move for that, and back: there, only the periodic refresh may find it.
            known = self._routes.known.get(topic)
            if known is not None and (partition < 0 or known.queues == 1):
                self._routes.suspect(topic)

    async def probe(self) -> None:
        """See :meth:`spanbridge.ports.Sink.probe`: a heartbeat where messages would go, and a route from the cluster.

        The route is of a topic in use, or of one configured; without any the heartbeat has to do. Every topic that is
        configured has to be there and take what will be sent to it.
        """
        await self._check_topics()
        route = next(iter(self._routes.known.values()), None)
        topic = route.topic if route is not None else next(iter(self._options.topics), None)
        if topic is not None:
            await self._query_route(topic)
        await self._any_heartbeat(addresses_of(route) if route is not None else self._addresses)

    async def _check_topics(self) -> None:
        """Find what a message would find, and say so once.

        :raises SinkError: of the first topic that cannot be used.
        """
        first: SinkError | None = None
        for topic in self._options.topics:
            try:
                route = await (self._routes.renew(topic) if topic in self._unusable else self._routes.get(topic))
                for named, kind in self._options.kinds:
                    if named == topic:
                        await self._check_type(route, definition.MessageType.Value(kind))
            except SinkMisconfigured as error:
                if self._unusable.get(topic) != str(error):
                    self._unusable[topic] = str(error)
                    self._reporter.report(TopicUnusable(topic=topic, reason=error.reason, cause=str(error)))
                first = first or error
            else:
                self._unusable.pop(topic, None)
        if first is not None:
            raise first

    async def _check_type(self, route: TopicRoute, kind: int) -> None:
        if kind in route.types:
            return
        # Whether that matters, the server's settings say. They may be on their way.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.request_timeout):
                await self._told.wait()
        if self._check_types:
            route.check(kind)

    async def _any_heartbeat(self, addresses: Sequence[str]) -> None:
        error: SinkError = SinkUnavailable("the RocketMQ sink is not started", reason="closed")
        sessions = [self._sessions[address] for address in addresses if address in self._sessions]
        for session in sorted(sessions, key=lambda session: session.endpoint.up is False):
            try:
                await session.heartbeat(self._options.request_timeout)
            except SinkError as failure:
                error = failure
            else:
                return
        raise error

    async def close(self) -> None:
        """See :meth:`spanbridge.ports.Sink.close`."""
        if self._link is Link.CLOSED:
            return
        self._change(Link.CLOSED)
        await self._idle.wait()  # every request has a deadline
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._routes.close()
        await asyncio.gather(*self._leaving)
        await asyncio.gather(*(session.close() for session in self._sessions.values()))
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()))
        # gRPC's thread still hands over the completions of what was cancelled; a loop that closes before that gets an
        # error from inside gRPC. There is nothing to wait for but time.
        await asyncio.sleep(_LAST_WORDS)

    @property
    def status(self) -> PeerStatus:
        """See :attr:`spanbridge.ports.Sink.status`."""
        return PeerStatus(
            name=self._options.name,
            link=self._link,
            since_ns=self._since_ns,
            last_error=self._last_error,
            detail={
                "client_id": self._client_id,
                "endpoints": {
                    endpoint.address: {
                        "up": endpoint.up,
                        "telemetry_stream": self._sessions[endpoint.address].stream_up,
                        "last_error": endpoint.last_error,
                    }
                    for endpoint in self._endpoints.values()
                },
                "topics": {
                    route.topic: {"queues": route.queues, "types": route.type_names}
                    for route in self._routes.known.values()
                },
                "in_flight": self._in_flight,
                "telemetry_stream": any(session.stream_up for session in self._sessions.values()),
                "max_body_bytes": self._encoder.max_body_bytes,
                "last_ok_ns": self._last_ok_ns,
            },
        )

    def _endpoint(self, address: str) -> Endpoint:
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = Endpoint(
                address,
                options=self._options,
                headers=self._headers,
                tls=self._tls,
                reporter=self._reporter,
                on_change=self._on_endpoint_change,
            )
            self._endpoints[address] = endpoint
            session = ClientSession(endpoint, self._options, self._settings, self._on_settings, self._reporter)
            self._sessions[address] = session
            session.start()
        return endpoint

    def _settings(self) -> Any:
        topics = {*self._options.topics, *self._routes.known}
        return settings_command(self._options, self._addresses, topics)

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
        initial, maximum, factor = self._backoff
        return Backoff(initial, maximum, factor)

    def _on_endpoint_change(self, endpoint: Endpoint) -> None:
        if endpoint.last_error is not None and not endpoint.up:
            self._last_error = endpoint.last_error
        self._judge_link()

    def _judge_link(self) -> None:
        if self._link is Link.CLOSED:
            return
        ups = [known.up for known in self._endpoints.values()]
        self._change(Link.UP if True in ups else Link.CONNECTING if None in ups else Link.BACKOFF)

    def _change(self, link: Link) -> None:
        if (link is Link.UP) is not (self._link is Link.UP):
            self._since_ns = time.time_ns()
        self._link = link

    async def _query_route(self, topic: str) -> TopicRoute:
        """Ask the configured endpoints in turn, those that answered last time first."""
        error: SinkError = SinkUnavailable("no endpoint", reason="unavailable")
        order = sorted(self._addresses, key=lambda address: self._endpoint(address).up is False)
        for address in order:
            try:
                route = await self._query_route_at(self._endpoint(address), topic)
            except (SinkUnavailable, SinkThrottled) as failure:
                error = failure
            else:
                if topic not in self._routes.known:
                    asyncio.get_running_loop().call_soon(self._announce)
                return route
        raise error

    async def _query_route_at(self, endpoint: Endpoint, topic: str) -> TopicRoute:
        request = service.QueryRouteRequest(
            topic=definition.Resource(name=topic, resource_namespace=self._options.namespace),
            endpoints=access_point(self._addresses),
        )
        timeout = self._options.request_timeout
        response = await endpoint.call(
            "QueryRoute", request, service.QueryRouteResponse, f"route of topic {topic!r}", timeout
        )
        return read_route(topic, response, None if self._options.follow_routes else self._addresses)

    def _announce(self) -> None:
        for session in self._sessions.values():
            session.announce()

    async def _warm_up(self) -> None:
        """Learn the routes known to be needed, so that the first message does not wait for them."""
        results = await asyncio.gather(*map(self._routes.get, self._options.topics), return_exceptions=True)
        for result in results:
            if isinstance(result, SinkError):
                self._last_error = str(result)

    async def _keep_routes(self) -> None:
        while True:
            await asyncio.sleep(self._options.route_refresh_interval)
            await self._routes.refresh()
            self._leave_unnamed()

    def _leave_unnamed(self) -> None:
        """Give up proxies that no route has named for two refreshes: brokers move, and addresses would gather."""
        named = {*self._addresses, *(a for route in self._routes.known.values() for a in addresses_of(route))}
        unnamed = self._endpoints.keys() - named
        for address in unnamed & self._unnamed:
            task = asyncio.get_running_loop().create_task(
                self._leave(self._sessions.pop(address), self._endpoints.pop(address))
            )
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._unnamed = unnamed & self._endpoints.keys()
        self._judge_link()

    async def _leave(self, session: ClientSession, endpoint: Endpoint) -> None:
        await session.close()
        await endpoint.close(self._options.request_timeout)


def _factor(multiplier: float) -> float:
    return min(max(1.0, multiplier), 16.0)  # in this order, "not a number" is 1


def parse_endpoints(text: str) -> tuple[str, ...]:
    """``host:port`` items separated by ``;``.

    :raises SinkMisconfigured: an item is something else.
    """
    items = tuple(item.strip() for item in text.split(";") if item.strip())
    for item in items:
        host, _, port = item.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
            raise SinkMisconfigured(f"rocketmq endpoints: {item!r} is not host:port", reason="illegal_access_point")
    if not items:
        raise SinkMisconfigured("rocketmq endpoints: none given", reason="illegal_access_point")
    return tuple(dict.fromkeys(items))
