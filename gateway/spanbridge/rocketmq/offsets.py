"""Offsets of queues and consumer groups, asked of name servers and brokers by the remoting protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from spanbridge.core.errors import OffsetsError
from spanbridge.ports import TopicQueue
from spanbridge.rocketmq.errors import judge_access
from spanbridge.rocketmq.remoting import admin
from spanbridge.rocketmq.remoting.answers import redacted
from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.client import RemotingClient
from spanbridge.rocketmq.remoting.codes import ResponseCode
from spanbridge.rocketmq.remoting.errors import RemotingError, RemotingRefused, RemotingUnavailable
from spanbridge.rocketmq.remoting.frame import AclKeys

T = TypeVar("T")

_SIDE_BY_SIDE = 16
"""Requests under way at a time: enough to hide the network, few enough to leave brokers their time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetsOptions:
    """``name_servers`` are ``host:port`` addresses, each tried in turn; ``timeout`` is of one request, in seconds."""

    name_servers: tuple[str, ...]
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    security_token: str | None = field(default=None, repr=False)
    timeout: float = 3.0


class RemotingOffsets:
    """One connection to each server, kept from call to call; a broken one is made again at the next call."""

    def __init__(self, options: OffsetsOptions) -> None:
        self.requests = 0
        self._options = options
        self._keys = AclKeys.given(options.access_key, options.secret_key, options.security_token)
        self._masters: dict[str, str] = {}
        self._clients: dict[str, RemotingClient] = {}
        self._attempts: dict[str, asyncio.Task[RemotingClient | RemotingError]] = {}
        self._slots = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def queues(self, topic: str) -> Sequence[TopicQueue]:
        """The topic's queues, by the first name server that answers."""
        route = await self._ask_name_server(admin.topic_route(topic))
        if route is None:
            return ()
        for found in route.brokers:
            if found.master is not None:
                self._masters[found.broker] = found.master
        return [TopicQueue(topic, found.broker, queue) for found in route.brokers for queue in range(found.read_queues)]

    async def max_offset(self, queue: TopicQueue) -> int:
        """``GET_MAX_OFFSET``"""
        return await self.ask_broker(queue.broker, admin.max_offset(queue.topic, queue.queue))

    async def min_offset(self, queue: TopicQueue) -> int:
        """``GET_MIN_OFFSET``"""
        return await self.ask_broker(queue.broker, admin.min_offset(queue.topic, queue.queue))

    async def offset_at(self, queue: TopicQueue, milliseconds: int) -> int:
        """``SEARCH_OFFSET_BY_TIMESTAMP``"""
        return await self.ask_broker(queue.broker, admin.offset_at(queue.topic, queue.queue, milliseconds))

    async def committed(self, group: str, queue: TopicQueue) -> int | None:
        """``QUERY_CONSUMER_OFFSET``"""
        return await self.ask_broker(queue.broker, admin.committed_offset(group, queue.topic, queue.queue))

    async def members(self, group: str, broker: str) -> int | None:
        """``GET_CONSUMER_LIST_BY_GROUP``"""
        return await self.ask_broker(broker, admin.members_of_group(group))

    async def ordered(self, broker: str) -> Mapping[str, bool]:
        """``GET_ALL_SUBSCRIPTIONGROUP_CONFIG``"""
        return {name: group.ordered for name, group in (await self.ask_broker(broker, admin.all_groups())).items()}

    async def groups(self, topic: str) -> Sequence[str]:
        """``QUERY_TOPIC_CONSUME_BY_WHO``, of each broker that has the topic."""
        brokers = dict.fromkeys(queue.broker for queue in await self.queues(topic))
        found = [await self.ask_broker(broker, admin.groups_of_topic(topic)) for broker in brokers]
        return sorted({group for groups in found for group in groups})

    async def close(self) -> None:
        """Close all connections."""
        attempts = list(self._attempts.values())
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _ask_name_server(self, call: Call[T]) -> T:
        failed: OffsetsError | None = None
        for address in self._options.name_servers:
            try:
                return await self._ask(address, call)
            except OffsetsError as error:
                failed = error
        raise failed or OffsetsError("no name server is given")

    async def ask_broker(self, broker: str, call: Call[T]) -> T:
        """Ask the master of a broker that a route has named.

        :raises OffsetsError: it does not answer, or refuses.
        """
        master = self._masters.get(broker)
        if master is None:
            raise OffsetsError(f"the broker {broker!r} has no master now", reason="no_master")
        # A proxy serves these requests as well, and passes them on to the broker that is named here; brokers ignore it.
        return await self._ask(master, replace(call, fields={**call.fields, "bname": broker}))

    async def _ask(self, address: str, call: Call[T]) -> T:
        async with self._slots:
            self.requests += 1
            try:
                client = await self._connected(address)
                return await client.ask(call)
            except RemotingUnavailable as error:
                # A connection that does not answer may be dead without a sign: the next call makes another.
                await self._forget(address)
                raise OffsetsError(str(error), reason=error.reason) from None
            except RemotingError as error:
                text, access = redacted(str(error), self._keys), None
                if isinstance(error, RemotingRefused) and error.code == ResponseCode.NO_PERMISSION:
                    access = judge_access(error.remark, "GET")
                advice = "" if access is None else f". {access.advice.rstrip('.')}"
                raise OffsetsError(f"{text}{advice}", reason=error.reason) from None

    async def _connected(self, address: str) -> RemotingClient:
        client = self._clients.get(address)
        if client is not None and client.is_open:
            return client
        attempt = self._attempts.get(address)
        if attempt is None:  # all who wait share one attempt, and its failure
            attempt = self._attempts[address] = asyncio.create_task(self._connect(address), name="connect for offsets")
            attempt.add_done_callback(lambda _: self._attempts.pop(address, None))
        made = await asyncio.shield(attempt)
        if isinstance(made, RemotingError):
            raise type(made)(str(made), reason=made.reason)
        return made

    async def _connect(self, address: str) -> RemotingClient | RemotingError:
        """The connection, or why there is none: an exception that nobody waits for any more would be logged."""
        try:
            client = RemotingClient(address, timeout=self._options.timeout, keys=self._keys)
            await client.connect()
        except ValueError as error:  # a route that announces something else than host:port
            return RemotingUnavailable(str(error), reason="address")
        except RemotingError as error:
            return error
        self._clients[address] = client
        return client

    async def _forget(self, address: str) -> None:
        client = self._clients.pop(address, None)
        if client is not None:
            await client.close()
