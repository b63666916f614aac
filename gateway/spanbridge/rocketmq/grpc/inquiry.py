"""What a proxy says of a consumer group and its topic to somebody who receives nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from spanbridge.core.errors import SinkError, bare
from spanbridge.ports import Reporter
from spanbridge.rocketmq.errors import build
from spanbridge.rocketmq.grpc.answers import judge_grpc
from spanbridge.rocketmq.grpc.cluster import Cluster
from spanbridge.rocketmq.grpc.endpoint import Endpoint
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus
from spanbridge.rocketmq.grpc.routes import read_origins
from spanbridge.rocketmq.grpc.session import ClientRole, access_point
from spanbridge.rocketmq.grpc.stubs import service, type_name
from spanbridge.rocketmq.grpc.subscription import CLIENT_TYPE, GroupSubscription
from spanbridge.rocketmq.options import ConsumerOptions


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """``ordered``: a queue's messages come one batch after the other. ``attempts``: deliveries before dead letters."""

    ordered: bool
    attempts: int


@dataclass(frozen=True, slots=True)
class ReadableTopic:
    """How many queues can be read, on which brokers, and the message types that the topic takes."""

    queues: int
    brokers: tuple[str, ...]
    types: frozenset[str]


class GroupInquiry:
    """A consumer that asks everything before the first receive call, and never makes one.

    Made by :func:`spanbridge.rocketmq.create_inquiry`. A receive call, however short, would take messages.
    """

    def __init__(self, options: ConsumerOptions, reporter: Reporter) -> None:
        self._options = options
        self._subscription = GroupSubscription(options)
        role = ClientRole(CLIENT_TYPE, self._settings, self._told, self._subscription.group, self._refused)
        self._cluster = Cluster(replace(options.cluster, topics=(), kinds=()), role, reporter)
        self._answered = asyncio.Event()
        self._refusal: SinkError | None = None

    async def start(self) -> None:
        """Connect. Returns at once.

        :raises SinkMisconfigured: the TLS options cannot be used.
        """
        await self._cluster.start()

    async def group(self) -> GroupAnswer:
        """The group as its settings show it, which a proxy answers to those of a consumer.

        :raises SinkError: there is no such group, this client may not use it, or no answer came in time.
        """
        try:
            async with asyncio.timeout(self._options.cluster.request_timeout):
                await self._answered.wait()
        except TimeoutError:
            silent = judge_grpc(GrpcStatus.DEADLINE_EXCEEDED, "")
            raise build(silent, "settings", self._cluster.addresses[0], "no answer in time") from None
        if self._refusal is not None:
            raise bare(self._refusal)
        return GroupAnswer(self._subscription.fifo, self._subscription.max_attempts)

    async def topic(self) -> ReadableTopic:
        """The topic as a consumer sees it.

        :raises SinkError: it is missing, this client may not look at it, or no queue of it can be read.
        """
        name = self._options.topic
        request = service.QueryRouteRequest(topic=self._subscription.topic, endpoints=self._access_point)
        response = await self._ask("QueryRoute", request, service.QueryRouteResponse, f"route of topic {name!r}")
        route = read_origins(name, response, None)
        types = frozenset(type_name(kind) for queue in response.message_queues for kind in queue.accept_message_types)
        return ReadableTopic(route.queues, tuple(origin.broker for origin in route.origins), types)

    async def rights(self) -> None:
        """Ask for what wants the same rights as a receive call, and brings no message (``QueryAssignment``).

        :raises SinkError: this client may not receive from the topic with the group.
        """
        options, subscription = self._options, self._subscription
        request = service.QueryAssignmentRequest(
            topic=subscription.topic, group=subscription.group, endpoints=self._access_point
        )
        what = f"queues of topic {options.topic!r} for group {options.group!r}"
        await self._ask("QueryAssignment", request, service.QueryAssignmentResponse, what)

    async def close(self) -> None:
        """Say goodbye and close the connections."""
        await self._cluster.close()

    async def _ask(self, method: str, request: Any, response: Any, what: str) -> Any:
        """Ask the first proxy that answers."""
        failure: SinkError | None = None
        for endpoint in self._endpoints():
            try:
                return await endpoint.call(method, request, response, what, self._options.cluster.request_timeout)
            except SinkError as error:
                failure = bare(error)
                if endpoint.up:  # it answered: the others would say the same
                    break
        assert failure is not None
        raise failure

    def _endpoints(self) -> Iterable[Endpoint]:
        return map(self._cluster.endpoint, self._cluster.addresses)

    @property
    def _access_point(self) -> Any:
        return access_point(self._cluster.addresses)

    def _settings(self) -> Any:
        return self._subscription.command(self._cluster.addresses)

    def _told(self, settings: Any) -> None:
        self._subscription.take(settings)
        self._answered.set()

    def _refused(self, error: SinkError) -> None:
        self._refusal = error
        self._answered.set()
