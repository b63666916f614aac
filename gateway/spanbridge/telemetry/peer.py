"""Who the gateway talks to, as span attributes say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """A broker (``server.address``, ``server.port``) and our name towards it (``messaging.client.id``)."""

    address: str = ""
    port: int = 0
    client_id: str = ""
    namespace: str = ""

    def attributes(self) -> dict[str, str | int]:
        """The attributes that are known."""
        named: dict[str, str | int] = {
            "server.address": self.address,
            "server.port": self.port,
            "messaging.client.id": self.client_id,
            "messaging.rocketmq.namespace": self.namespace,
        }
        return {name: value for name, value in named.items() if value}
