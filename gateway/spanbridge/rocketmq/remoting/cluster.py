"""One cluster as a client sees it: its name servers, its brokers, and the routes of topics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from spanbridge.core.errors import SinkError, SinkThrottled, SinkUnavailable, bare
from spanbridge.ports import Link, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.cluster_link import ClusterLink
from spanbridge.rocketmq.events import RouteLearned
from spanbridge.rocketmq.ids import client_id
from spanbridge.rocketmq.options import RocketmqOptions, parse_endpoints
from spanbridge.rocketmq.remoting.admin import TopicRoute, topic_route
from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.client import OnRequest
from spanbridge.rocketmq.remoting.encode import wire_topic
from spanbridge.rocketmq.remoting.endpoint import RemotingEndpoint
from spanbridge.rocketmq.remoting.frame import AclKeys
from spanbridge.rocketmq.tls import TlsFiles
from spanbridge.rocketmq.topic_routes import TopicRoutes

_EVERYWHERE: Final = "SELF_TEST_TOPIC"
"""A topic of RocketMQ's own that every broker has: its route names the brokers that are registered."""
_LONGEST_HEARTBEAT: Final = 30.0
"""Seconds. A broker closes a connection that it has not heard of for 120 s."""


class ClientRoute(Protocol):
    """A topic's route as a client uses it. ``masters`` are addresses by broker."""

    @property
    def queues(self) -> Collection[Any]:
        """The queues that can be used."""

    @property
    def masters(self) -> Mapping[str, str]:
        """The addresses of their brokers."""


R = TypeVar("R", bound=ClientRoute)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotingRole(Generic[R]):
    """What a client is: how it reads routes (topic, its name with the namespace, what was found), and what it tells
    brokers of itself, by its client id. ``on_request`` is for what brokers ask.
    """

    read_route: Callable[[str, str, TopicRoute | None], R]
    heartbeat: Callable[[str], Call[int]]
    goodbye: Callable[[str], Call[None]]
    reading: bool = False
    on_request: OnRequest | None = None


class RemotingCluster(ClusterLink, Generic[R]):
    """Connections and routes. One for each client."""

    def __init__(self, options: RocketmqOptions, role: RemotingRole[R], reporter: Reporter) -> None:
        super().__init__()
        self.client_id = client_id()
        self.name_servers = parse_endpoints(options.endpoints)
        self.routes: TopicRoutes[R] = TopicRoutes(self.query_route, reporter, self._learned)
        self._options = options
        self._role = role
        self._reporter = reporter
        self._keys = AclKeys.given(options.access_key, options.secret_key, options.security_token)
        self._tls = TlsFiles(options.tls)
        self._endpoints: dict[str, RemotingEndpoint] = {}
        self._apart: dict[str, RemotingEndpoint] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._unnamed: set[str] = set()
        self._left = False

    async def start(self) -> None:
        """Learn the routes of the topics known in advance, and keep them. Returns at once.

        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        await asyncio.to_thread(self._tls.load)
        if self.link is Link.CLOSED:  # meanwhile
            return
        self.change(Link.CONNECTING)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work) for work in (self._warm_up(), self._keep_routes(), self._keep_alive())]

    def endpoint(self, address: str) -> RemotingEndpoint:
        """The endpoint at an address; made when it is not there yet."""
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = self._make(address, self._on_endpoint_change)
        return endpoint

    def long_polls(self, address: str) -> RemotingEndpoint:
        """An endpoint of its own for requests that a broker keeps open: they end with its connection.

        What becomes of it is told by those who ask. Made anew after :meth:`RemotingEndpoint.finish`.
        """
        endpoint = self._apart.get(address)
        if endpoint is None or endpoint.closed:
            endpoint = self._apart[address] = self._make(address, None)
        return endpoint

    def _make(self, address: str, on_change: Callable[[RemotingEndpoint], None] | None) -> RemotingEndpoint:
        return RemotingEndpoint(
            address,
            options=self._options,
            keys=self._keys,
            tls=self._tls,
            reporter=self._reporter,
            on_change=on_change,
            on_request=self._role.on_request,
        )

    def peers(self) -> dict[str, dict[str, Any]]:
        """The endpoints for /status."""
        return {
            address: {
                "role": "name server" if address in self.name_servers else "broker",
                "up": endpoint.up,
                "last_error": endpoint.last_error,
            }
            for address, endpoint in self._endpoints.items()
        }

    async def query_route(self, topic: str) -> R:
        """Ask the name servers for a topic's route.

        :raises SinkError: there is no such topic, or no answer.
        """
        name = wire_topic(self._options.namespace, topic)
        found = await self.wire_route(name)
        if found is None:
            await self._see_brokers(topic)
        return self._role.read_route(topic, name, found)

    async def wire_route(self, name: str) -> TopicRoute | None:
        """The route of a topic by the name that brokers know, from a name server: those that answered last time first.

        :raises SinkError: none answers.
        """
        failures: list[SinkError] = []
        what = f"route of topic {name!r}"
        for address in sorted(self.name_servers, key=lambda address: self.endpoint(address).up is False):
            try:
                return await self.endpoint(address).ask(topic_route(name), what)
            except (SinkUnavailable, SinkThrottled) as failure:
                failures = [bare(failure)]
        raise failures.pop()

    async def _see_brokers(self, topic: str) -> None:
        """A name server forgets a broker's topics when it stops: that is no reason to call a topic missing.

        :raises SinkUnavailable: no broker is registered, or not all of those that had the topic.
        """
        known = self.routes.known.get(topic)
        registered = await self.brokers()
        if not registered or (known is not None and not registered.keys() >= known.masters.keys()):
            raise SinkUnavailable(
                f"topic {topic!r}: its broker is not registered with the name server", reason="no_broker"
            )

    async def brokers(self) -> dict[str, str]:
        """The brokers that are registered and have a master: addresses by name.

        :raises SinkError: no name server says.
        """
        found = await self.wire_route(_EVERYWHERE)
        return {} if found is None else {one.broker: one.master for one in found.brokers if one.master is not None}

    async def heartbeat(self, addresses: Sequence[str]) -> None:
        """A heartbeat that any of the brokers at ``addresses`` takes.

        :raises SinkError: none does.
        """
        failures: list[SinkError] = []
        for address in sorted(addresses, key=lambda address: self.endpoint(address).up is False):
            try:
                await self.beat(address)
            except SinkError as failure:
                failures = [bare(failure)]
            else:
                return
        raise failures.pop() if failures else SinkUnavailable("no broker of RocketMQ is known", reason="no_broker")

    async def beat(self, address: str) -> int:
        """A heartbeat to one broker; its version (an ordinal of ``MQVersion``).

        :raises SinkError: it does not take it.
        """
        endpoint = self.endpoint(address)
        endpoint.version = version = await endpoint.ask(self._role.heartbeat(self.client_id), "heartbeat")
        return version

    async def _warm_up(self) -> None:
        """Learn the routes known to be needed, so that the first message does not wait for them."""
        with guarded("first routes", self._reporter):
            results = await asyncio.gather(*map(self.routes.get, self._options.topics), return_exceptions=True)
            for result in results:
                if isinstance(result, SinkError):
                    self.note_error(str(result))
            await self._beat_all()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(min(self._options.heartbeat_interval, _LONGEST_HEARTBEAT))
            with guarded("heartbeats", self._reporter):
                await self._beat_all()

    async def _beat_all(self) -> None:
        """A heartbeat to each broker. What comes of it, the endpoint has told."""
        if not self._left:
            await asyncio.gather(*map(self.beat, self._broker_addresses()), return_exceptions=True)

    def _broker_addresses(self) -> set[str]:
        return {address for route in self.routes.known.values() for address in route.masters.values()}

    async def _keep_routes(self) -> None:
        while True:
            await asyncio.sleep(self._options.route_refresh_interval)
            with guarded("route refresh", self._reporter):
                await self.routes.refresh()
                await self._leave_unnamed()
            with guarded("certificates", self._reporter):
                if await asyncio.to_thread(self._tls.load):
                    for endpoint in (*self._endpoints.values(), *self._apart.values()):
                        endpoint.renew("certificates renewed")

    async def _leave_unnamed(self) -> None:
        """Give up brokers that no route has named for two refreshes: they move, and addresses would gather."""
        unnamed = self._endpoints.keys() - {*self.name_servers, *self._broker_addresses()}
        for address in unnamed & self._unnamed:
            await self._endpoints.pop(address).close()
            if address in self._apart:
                await self._apart.pop(address).close()
        self._unnamed = unnamed & self._endpoints.keys()
        self._judge_link()

    def _on_endpoint_change(self, endpoint: RemotingEndpoint) -> None:
        if endpoint.last_error is not None and not endpoint.up:
            self.note_error(endpoint.last_error)
        self._judge_link()

    def _judge_link(self) -> None:
        """By the brokers; by the name servers until a broker is known."""
        brokers = [one.up for address, one in self._endpoints.items() if address not in self.name_servers]
        self.judge(brokers or [one.up for one in self._endpoints.values()])

    async def close(self) -> None:
        """End background work, say goodbye and close the connections. No request is under way any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.routes.close()
        await self.leave()
        endpoints = (*self._endpoints.values(), *self._apart.values())
        await asyncio.gather(*(endpoint.close() for endpoint in endpoints))

    async def leave(self) -> None:
        """Say goodbye to the brokers, and send no more heartbeats. Idempotent."""
        if not self._left:
            self._left = True
            await asyncio.gather(*map(self._leave, self._broker_addresses() & self._endpoints.keys()))

    async def _leave(self, address: str) -> None:
        endpoint = self._endpoints[address]
        if endpoint.up:
            with suppress(SinkError):
                await endpoint.ask(self._role.goodbye(self.client_id), "goodbye")

    def _learned(self, topic: str, route: R) -> RouteLearned:
        return RouteLearned(topic=topic, queues=len(route.queues), types=None, reading=self._role.reading)
