"""One cluster as a producer sees it: its name servers, its brokers, and the routes of topics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from spanbridge.core.errors import SinkError, SinkThrottled, SinkUnavailable, bare
from spanbridge.ports import Link, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.cluster_link import ClusterLink
from spanbridge.rocketmq.events import RouteLearned
from spanbridge.rocketmq.ids import client_id
from spanbridge.rocketmq.options import RocketmqOptions, parse_endpoints
from spanbridge.rocketmq.remoting.admin import TopicRoute, topic_route
from spanbridge.rocketmq.remoting.encode import wire_topic
from spanbridge.rocketmq.remoting.endpoint import RemotingEndpoint
from spanbridge.rocketmq.remoting.frame import AclKeys
from spanbridge.rocketmq.remoting.routes import SendRoute, read_send_route
from spanbridge.rocketmq.remoting.send import heartbeat, unregister
from spanbridge.rocketmq.tls import TlsFiles
from spanbridge.rocketmq.topic_routes import TopicRoutes

_EVERYWHERE: Final = "SELF_TEST_TOPIC"
"""A topic of RocketMQ's own that every broker has: its route names the brokers that are registered."""
_LONGEST_HEARTBEAT: Final = 30.0
"""Seconds. A broker closes a connection that it has not heard of for 120 s."""


class RemotingCluster(ClusterLink):
    """Connections and routes. One for each producer."""

    def __init__(self, options: RocketmqOptions, reporter: Reporter) -> None:
        super().__init__()
        self.client_id = client_id()
        self.name_servers = parse_endpoints(options.endpoints)
        self.routes = TopicRoutes(self.query_route, reporter, _learned)
        self._options = options
        self._reporter = reporter
        self._keys = _keys(options)
        self._tls = TlsFiles(options.tls)
        self._endpoints: dict[str, RemotingEndpoint] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._unnamed: set[str] = set()

    async def start(self) -> None:
        """Learn the routes of the topics known in advance, and keep them. Returns at once.

        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        await asyncio.to_thread(self._tls.load)
        self.change(Link.CONNECTING)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work) for work in (self._warm_up(), self._keep_routes(), self._keep_alive())]

    def endpoint(self, address: str) -> RemotingEndpoint:
        """The endpoint at an address; made when it is not there yet."""
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = RemotingEndpoint(
                address,
                options=self._options,
                keys=self._keys,
                tls=self._tls,
                reporter=self._reporter,
                on_change=self._on_endpoint_change,
            )
        return endpoint

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

    async def query_route(self, topic: str) -> SendRoute:
        """Ask the name servers for a topic's route.

        :raises SinkError: there is no such topic, or no answer.
        """
        name = wire_topic(self._options.namespace, topic)
        found = await self._ask_name_server(name)
        if found is None:
            await self._see_brokers(topic)
        return read_send_route(topic, name, found)

    async def _ask_name_server(self, name: str) -> TopicRoute | None:
        """In turn, those that answered last time first."""
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
        found = await self._ask_name_server(_EVERYWHERE)
        return {} if found is None else {one.broker: one.master for one in found.brokers if one.master is not None}

    async def heartbeat(self, addresses: Sequence[str]) -> None:
        """A heartbeat that any of the brokers at ``addresses`` takes.

        :raises SinkError: none does.
        """
        failures: list[SinkError] = []
        for address in sorted(addresses, key=lambda address: self.endpoint(address).up is False):
            try:
                await self._beat(address)
            except SinkError as failure:
                failures = [bare(failure)]
            else:
                return
        raise failures.pop() if failures else SinkUnavailable("no broker of RocketMQ is known", reason="no_broker")

    async def _beat(self, address: str) -> None:
        endpoint = self.endpoint(address)
        endpoint.version = await endpoint.ask(heartbeat(self.client_id), "heartbeat")

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
        await asyncio.gather(*map(self._beat, self._broker_addresses()), return_exceptions=True)

    def _broker_addresses(self) -> set[str]:
        return {address for route in self.routes.known.values() for address in route.addresses}

    async def _keep_routes(self) -> None:
        while True:
            await asyncio.sleep(self._options.route_refresh_interval)
            with guarded("route refresh", self._reporter):
                await self.routes.refresh()
                await self._leave_unnamed()
            with guarded("certificates", self._reporter):
                if await asyncio.to_thread(self._tls.load):
                    for endpoint in self._endpoints.values():
                        endpoint.renew("certificates renewed")

    async def _leave_unnamed(self) -> None:
        """Give up brokers that no route has named for two refreshes: they move, and addresses would gather."""
        unnamed = self._endpoints.keys() - {*self.name_servers, *self._broker_addresses()}
        for address in unnamed & self._unnamed:
            await self._endpoints.pop(address).close()
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
        await asyncio.gather(*map(self._leave, self._broker_addresses() & self._endpoints.keys()))
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()))

    async def _leave(self, address: str) -> None:
        endpoint = self._endpoints[address]
        if endpoint.up:
            with suppress(SinkError):
                await endpoint.ask(unregister(self.client_id), "goodbye")


def _learned(topic: str, route: SendRoute) -> RouteLearned:
    return RouteLearned(topic=topic, queues=len(route.queues), types=None)


def _keys(options: RocketmqOptions) -> AclKeys | None:
    if options.access_key is None or options.secret_key is None:
        return None
    return AclKeys(options.access_key, options.secret_key, options.security_token)
