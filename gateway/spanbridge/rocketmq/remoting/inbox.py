"""What the ways of receiving have in common: what they are made from, and what the consumer asks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spanbridge.core.message import Message
from spanbridge.ports import Acked, Received, Reporter
from spanbridge.rocketmq.held import Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.receive_health import ReceiveHealth
from spanbridge.rocketmq.remoting.brokers import RemotingBrokers
from spanbridge.rocketmq.remoting.cluster import RemotingCluster
from spanbridge.rocketmq.remoting.incoming import Incoming
from spanbridge.rocketmq.remoting.routes import ReadRoute
from spanbridge.rocketmq.remoting.subscription import RemotingSubscription

TakeIncoming = Callable[[str, Sequence[Incoming], int], list[Message]]
"""Takes messages of a broker that were asked for at a moment (monotonic, ns); those that are wanted. Never raises."""


@dataclass(frozen=True, slots=True)
class ConsumerParts:
    """One consumer's. ``open`` is set while messages are wanted."""

    options: ConsumerOptions
    cluster: RemotingCluster[ReadRoute]
    brokers: RemotingBrokers
    subscription: RemotingSubscription
    held: Held
    health: ReceiveHealth
    open: asyncio.Event
    reporter: Reporter
    received: Received
    acked: Acked
    take: TakeIncoming


class ReceiveWay(Protocol):
    """POP, or pull."""

    leaving: bool
    """Whether what is nacked is to come again at once: we are about to go."""

    @property
    def brokers(self) -> frozenset[str]:
        """The brokers that are asked for messages."""

    async def keep(self) -> None:
        """Receive until cancelled. Returns only when the brokers do not let us receive in this way at all."""

    async def stop(self) -> None:
        """Ask for nothing more, and take what has been sent. Messages that we hold stay ours."""

    def conclude(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """Carry out the answers to these. Never raises."""

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Requests under way that carry out answers."""

    async def leave(self) -> None:
        """Nothing is in our hands any more: let others have what is ours by right."""

    async def close(self) -> None:
        """End what is under way."""
