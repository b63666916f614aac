"""Requests to a broker by its name, through a proxy that leads to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spanbridge.rocketmq.grpc.cluster import Cluster
from spanbridge.rocketmq.grpc.endpoint import Endpoint
from spanbridge.rocketmq.grpc.routes import Origin
from spanbridge.rocketmq.grpc.stubs import definition

MULTIPLE_RESULTS: int = definition.Code.MULTIPLE_RESULTS


class Brokers:
    """The brokers of a route. Those that have left it are still known: messages of theirs may be in our hands."""

    def __init__(self, cluster: Cluster, timeout: float) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._addresses: dict[str, tuple[str, ...]] = {}

    def learn(self, origins: Sequence[Origin]) -> None:
        """Take over where brokers are now."""
        self._addresses |= {origin.broker: origin.addresses for origin in origins}

    async def endpoint(self, broker: str) -> Endpoint:
        """A proxy that leads to a broker and knows us; of several, one that answers.

        :raises SinkError: it does not know us within the request timeout.
        """
        addresses = self._addresses[broker]
        if len(addresses) == 1:
            return await self._cluster.introduced(addresses[0])
        known = self._cluster.peers()
        address = min(addresses, key=lambda address: known.get(address, {}).get("up") is False)
        return await self._cluster.introduced(address)

    async def ask(self, broker: str, method: str, request: Any, response_type: Any, what: str) -> Any:
        """The answer to a unary request. That of its parts differs (MULTIPLE_RESULTS) is no error here.

        :raises SinkError: there was none, or it says no.
        """
        return await self.ask_encoded(broker, method, request.SerializeToString(), response_type, what)

    async def ask_encoded(self, broker: str, method: str, request: bytes, response_type: Any, what: str) -> Any:
        """The same for a request that is encoded.

        :raises SinkError: there was no answer, or it says no.
        """
        endpoint = await self.endpoint(broker)
        return await endpoint.call_encoded(method, request, response_type, what, self._timeout, also=MULTIPLE_RESULTS)
