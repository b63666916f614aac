"""Where batches go, on the way up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from spanbridge.ports.common import PeerStatus

D_contra = TypeVar("D_contra", contravariant=True)


class Head(Protocol):
    """What all messages of one destination share, in the sink's own form."""

    @property
    def partition(self) -> int:
        """Messages of one topic and partition keep their order, and may share a request.

        Negative when order does not matter: -1 without a message group, -2 with a delivery timestamp.
        """

    def encode(self, body: bytes, traceparent: str, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        """One message ready to be sent, with a fresh message id. Hot path; pure but for the id.

        ``traceparent`` is written as the property of that name, nothing when it is "". ``properties`` are those beside
        the destination's. ``born_ns`` is Unix time in nanoseconds.

        :raises SinkRejected: too large, empty, or a property that is not legal.
        """


class Sink(Protocol[D_contra]):
    """Where messages go: a head once per destination, its encoding per message, a send per batch."""

    @property
    def status(self) -> PeerStatus:
        """The connection to the cluster as of now."""

    async def start(self) -> None:
        """Start background work (routes, heartbeats, telemetry). Returns at once, also when the cluster is away."""

    def head(self, destination: D_contra) -> Head:
        """Encode what is fixed about a destination. Pure; kept by the caller.

        :raises SinkRejected: the topic, tag, a key, the group or a property is not legal in RocketMQ.
        """

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        """Send encoded messages, as one request where that is possible; return once all of them are stored.

        A few quick retries to other endpoints happen inside.

        :raises SinkError: not all of them are known to be stored. ``error.stored`` holds the indexes that are: these
            are not to be sent again. The sub-class says what can be done about the rest.
        """

    async def probe(self) -> None:
        """A real round trip that shows whether a send could work now.

        :raises SinkError: it could not.
        """

    async def close(self) -> None:
        """Finish what is in flight, end background work, close channels. Idempotent."""
