"""Ports.

What the pipelines need from the outside. Adapters implement them; contract tests hold for each implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from spanbridge.core.events import Event
from spanbridge.core.message import Address, Publish

Deliver = Callable[[list[Publish]], None]
"""Takes all messages decoded from one socket read, in receive order. Synchronous, never raises, never blocks."""

Connected = Callable[[], None]
"""Called when a connection was accepted, before anything of it is delivered. Synchronous, never raises, never blocks.

What the last connection was owed is over: :attr:`Source.epoch` and :attr:`Source.session` are the new ones.
"""


class Link(StrEnum):
    """State of a connection to a peer."""

    IDLE = "idle"
    CONNECTING = "connecting"
    UP = "up"
    BACKOFF = "backoff"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A snapshot for health and /status. ``since_ns`` is Unix time in nanoseconds: since when it is up, or is not.

    Between attempts to connect ``link`` changes, ``since_ns`` does not. ``last_error`` is one line without secrets.
    ``detail`` is JSON-able and specific to the adapter.
    """

    name: str
    link: Link
    since_ns: int
    last_error: str | None
    detail: dict[str, Any]


class Reporter(Protocol):
    """Where internal events go: counted always, logged with a rate limit."""

    def report(self, event: Event) -> None:
        """Take an event. Never raises, never blocks."""


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def now_ns(self) -> int:
        """Unix time in nanoseconds."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment. Never set, as Unix time is once a machine without a clock has network."""

    async def sleep(self, seconds: float) -> None:
        """Pause the calling task."""


class Source(Protocol):
    """An MQTT connection that delivers messages and owes acknowledgements for them."""

    @property
    def name(self) -> str:
        """The configured name, used in logs and metrics."""

    @property
    def status(self) -> PeerStatus:
        """The connection as of now."""

    @property
    def epoch(self) -> int:
        """:attr:`Publish.epoch` of the connection that takes acknowledgements now; 0 while there is none."""

    @property
    def session(self) -> int:
        """Number of the broker's session as of the latest connection. It grows when the broker had kept none.

        Also when nothing was delivered on that connection: packet identifiers of an earlier session mean nothing then.
        """

    async def run(self, deliver: Deliver, connected: Connected | None = None) -> None:
        """Connect, subscribe and deliver until :meth:`close`; reconnect with jittered backoff in between.

        Raises only what no retry can mend. Peers that are away, hang, refuse or send malformed packets are
        reported, not raised.
        """

    def settle(self, publishes: Sequence[Publish]) -> None:
        """Acknowledge (PUBACK, or PUBREC for QoS 2) in the order given, in one write.

        The caller keeps receive order (MQTT-4.6.0-2). QoS 0 is ignored, as are messages of a connection that is gone:
        the broker sends those again. Synchronous; never raises.
        """

    def pause(self) -> None:
        """Stop reading the socket.

        What is in flight is bounded by us, since brokers overrun Receive Maximum. Idempotent.
        """

    def resume(self) -> None:
        """Read again. Idempotent."""

    async def stop_intake(self) -> None:
        """Deliver nothing more, keep the connection and the session: acknowledgements still go out. Idempotent."""

    async def close(self) -> None:
        """Flush what :meth:`settle` wrote, disconnect in order and keep the session with the broker.

        :meth:`run` returns then. Idempotent.
        """


class Sink(Protocol):
    """RocketMQ as the uplink sees it: prepare once per MQTT topic, encode per message, send per batch."""

    @property
    def status(self) -> PeerStatus:
        """The cluster connection as of now."""

    async def start(self) -> None:
        """Start background work (routes, heartbeats, telemetry). Returns at once, also when the cluster is away."""

    def prepare(self, address: Address) -> Any:
        """Everything of a message that does not change, in the adapter's own form. Pure; cached by the caller for good.

        :raises SinkRejected: the topic, tag, a key, the group or a property is not legal in RocketMQ.
        """

    def encode(self, prepared: Any, body: bytes, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        """One message ready to be sent, with a fresh message id. Hot path; pure but for the id.

        :raises SinkRejected: too large, empty, or a property that is not legal.
        """

    def lane(self, prepared: Any) -> int:
        """The key by which messages may share a batch: messages of one topic and lane end up in one queue, in order.

        -1 when the message has no group and any queue will do. Fixed by what was prepared: cached by the caller for
        good.
        """

    async def send(self, topic: str, lane: int, batch: Sequence[bytes]) -> None:
        """Send encoded messages as one request; return once RocketMQ has stored all of them.

        A few quick retries to other endpoints happen inside. One status holds for the whole batch.

        :raises SinkError: nothing is known to be stored. The sub-class says what can be done.
        """

    async def probe(self) -> None:
        """A real round trip that shows whether a send could work now.

        :raises SinkError: it could not.
        """

    async def close(self) -> None:
        """Finish what is in flight, end background work, close channels. Idempotent."""
