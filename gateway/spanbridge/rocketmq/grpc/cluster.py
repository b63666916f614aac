"""One cluster as one client sees it: its endpoints, a session with each, and the routes of topics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from spanbridge.core.errors import SinkError, SinkThrottled, SinkUnavailable, bare
from spanbridge.ports import Link, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.cluster_link import ClusterLink
from spanbridge.rocketmq.errors import build
from spanbridge.rocketmq.grpc.answers import judge_grpc
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.grpc.endpoint import Endpoint
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus
from spanbridge.rocketmq.grpc.routes import ProxyRoute, ProxyRoutes, addresses_of, read_origins, read_route
from spanbridge.rocketmq.grpc.session import ClientRole, ClientSession, access_point
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.ids import client_id
from spanbridge.rocketmq.options import RocketmqOptions, parse_endpoints
from spanbridge.rocketmq.tls import TlsFiles


class Cluster(ClusterLink):
    """What producers and consumers have in common. One for each client: RocketMQ keeps one role for a client id."""

    def __init__(self, options: RocketmqOptions, role: ClientRole, reporter: Reporter) -> None:
        super().__init__()
        self.addresses = parse_endpoints(options.endpoints)
        self.client_id = client_id()
        self.routes = ProxyRoutes(self.query_route, reporter)
        self._options = options
        self._role = role
        self._reporter = reporter
        self._headers = Credentials(options, self.client_id)
        self._certificates = TlsFiles(options.tls, ["h2"])
        self._endpoints: dict[str, Endpoint] = {}
        self._sessions: dict[str, ClientSession] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._unnamed: set[str] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect to the configured endpoints, and learn the routes of the topics known in advance. Returns at once.

        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        await asyncio.to_thread(self._certificates.load)
        if self.link is Link.CLOSED:  # meanwhile
            return
        self.change(Link.CONNECTING)
        for address in self.addresses:
            self.endpoint(address)
        self._tasks = [self._task(self._warm_up()), self._task(self._keep_routes())]

    @staticmethod
    def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def endpoint(self, address: str) -> Endpoint:
        """The endpoint at an address, with a session; made when it is not there yet."""
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = Endpoint(
                address,
                options=self._options,
                headers=self._headers,
                certificates=self._certificates,
                reporter=self._reporter,
                on_change=self._on_endpoint_change,
                right="PUB" if self._role.group is None else "SUB",
            )
            session = ClientSession(endpoint, self._options, self._role, self._reporter)
            self._sessions[address] = session
            session.start()
        return endpoint

    async def introduced(self, address: str) -> Endpoint:
        """The endpoint at an address, once it has answered our settings: before, it refuses a consumer's requests.

        :raises SinkError: it has not within the request timeout; says why when the proxy did.
        """
        endpoint = self.endpoint(address)
        session = self._sessions[address]
        if session.told.is_set():
            return endpoint
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await session.told.wait()
        except TimeoutError:
            if session.refusal is not None:
                raise bare(session.refusal) from None
            silent = judge_grpc(GrpcStatus.DEADLINE_EXCEEDED, "")
            raise build(silent, "settings", address, "no answer in time") from None
        return endpoint

    async def admitted(self) -> None:
        """See that no proxy refuses what we are about to do; wait for its word, until the request timeout.

        :raises SinkError: why one does.
        """
        sessions = list(self._sessions.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.request_timeout):
                await asyncio.gather(*(one.judged.wait() for one in sessions if one.endpoint.up is not False))
        for session in sessions:
            if session.refusal is not None:
                raise bare(session.refusal)

    async def settled(self, timeout: float) -> None:
        """Wait until what proxies wrote to us before now is here, for so many seconds at most."""
        await asyncio.gather(*(endpoint.calls.settled(timeout) for endpoint in self._endpoints.values()))

    def peers(self) -> dict[str, dict[str, Any]]:
        """The endpoints for /status."""
        return {
            address: {
                "up": endpoint.up,
                "telemetry_stream": self._sessions[address].stream_up,
                "last_error": endpoint.last_error,
            }
            for address, endpoint in self._endpoints.items()
        }

    @property
    def stream_up(self) -> bool:
        """Whether any endpoint has taken our settings."""
        return any(session.stream_up for session in self._sessions.values())

    async def heartbeat(self, addresses: Sequence[str]) -> None:
        """A heartbeat that any of the endpoints at ``addresses`` answers.

        :raises SinkError: none does.
        """
        sessions = [self._sessions[address] for address in addresses if address in self._sessions]
        failures: list[SinkError] = []
        for session in sorted(sessions, key=lambda session: session.endpoint.up is False):
            try:
                await session.heartbeat(self._options.request_timeout)
            except SinkError as failure:
                failures = [bare(failure)]
            else:
                return
        raise failures.pop() if failures else SinkUnavailable("the RocketMQ client is not started", reason="closed")

    async def query_route(self, topic: str) -> ProxyRoute:
        """Ask the configured endpoints in turn, those that answered last time first.

        :raises SinkError: the cluster does not know the topic, or does not answer.
        """
        failures: list[SinkError] = []
        for address in sorted(self.addresses, key=lambda address: self.endpoint(address).up is False):
            try:
                route = await self._query_route_at(self.endpoint(address), topic)
            except (SinkUnavailable, SinkThrottled) as failure:
                failures = [bare(failure)]
            else:
                if topic not in self.routes.known:
                    asyncio.get_running_loop().call_soon(self._announce)
                return route
        raise failures.pop()

    async def _query_route_at(self, endpoint: Endpoint, topic: str) -> ProxyRoute:
        request = service.QueryRouteRequest(
            topic=definition.Resource(name=topic, resource_namespace=self._options.namespace),
            endpoints=access_point(self.addresses),
        )
        timeout = self._options.request_timeout
        response = await endpoint.call(
            "QueryRoute", request, service.QueryRouteResponse, f"route of topic {topic!r}", timeout
        )
        read = read_route if self._role.group is None else read_origins
        return read(topic, response, None if self._options.follow_routes else self.addresses)

    def _announce(self) -> None:
        for session in self._sessions.values():
            session.announce()

    async def _warm_up(self) -> None:
        """Learn the routes known to be needed, so that the first message does not wait for them."""
        with guarded("first routes", self._reporter):
            results = await asyncio.gather(*map(self.routes.get, self._options.topics), return_exceptions=True)
            for result in results:
                if isinstance(result, SinkError):
                    self.note_error(str(result))

    async def _keep_routes(self) -> None:
        while True:
            await asyncio.sleep(self._options.route_refresh_interval)
            with guarded("route refresh", self._reporter):
                await self.routes.refresh()
                self._leave_unnamed()
            with guarded("certificates", self._reporter):
                await self._renew_certificates()

    async def _renew_certificates(self) -> None:
        if await asyncio.to_thread(self._certificates.load):
            for endpoint in self._endpoints.values():
                endpoint.replace("certificates renewed")

    def _leave_unnamed(self) -> None:
        """Give up proxies that no route has named for two refreshes: brokers move, and addresses would gather."""
        named = {*self.addresses, *(a for route in self.routes.known.values() for a in addresses_of(route))}
        unnamed = self._endpoints.keys() - named
        for address in unnamed & self._unnamed:
            task = self._task(self._leave(self._sessions.pop(address), self._endpoints.pop(address)))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._unnamed = unnamed & self._endpoints.keys()
        self._judge_link()

    async def _leave(self, session: ClientSession, endpoint: Endpoint) -> None:
        with guarded("leaving a proxy", self._reporter):
            await session.close()
            await endpoint.close(self._options.request_timeout)

    def _on_endpoint_change(self, endpoint: Endpoint) -> None:
        if endpoint.last_error is not None and not endpoint.up:
            self.note_error(endpoint.last_error)
        self._judge_link()

    def _judge_link(self) -> None:
        self.judge(endpoint.up for endpoint in self._endpoints.values())

    async def close(self) -> None:
        """End background work, say goodbye and close the connections. No request is under way any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.routes.close()
        await asyncio.gather(*self._leaving)
        await asyncio.gather(*(session.close() for session in self._sessions.values()), return_exceptions=True)
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()), return_exceptions=True)
