"""Requests to a broker by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.cluster import RemotingCluster
from spanbridge.rocketmq.remoting.endpoint import RemotingEndpoint
from spanbridge.rocketmq.remoting.routes import ReadRoute

T = TypeVar("T")


class RemotingBrokers:
    """The brokers of a route. Those that have left it are still known: messages of theirs may be in our hands."""

    def __init__(self, cluster: RemotingCluster[ReadRoute]) -> None:
        self._cluster = cluster
        self._addresses: dict[str, str] = {}

    def learn(self, masters: Mapping[str, str]) -> None:
        """Take over where brokers are now."""
        self._addresses |= masters

    def address(self, broker: str) -> str:
        """Where its master was last."""
        return self._addresses[broker]

    def long_polls(self, broker: str) -> RemotingEndpoint:
        """The endpoint for requests that it keeps open."""
        return self._cluster.long_polls(self._addresses[broker])

    async def ask(self, broker: str, call: Call[T], what: str) -> T:
        """What it answers.

        :raises SinkError: nothing, or no.
        """
        return await self._cluster.endpoint(self._addresses[broker]).ask(call, what)
