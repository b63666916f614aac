"""Ports.

What the pipelines need from the outside. Adapters implement them; contract tests hold for each implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkError, SpanbridgeError
from spanbridge.core.events import Event
from spanbridge.core.message import Message, Publish
from spanbridge.core.spooled import Lost, Record

M = TypeVar("M")
P = TypeVar("P", bound="Publication")
D_contra = TypeVar("D_contra", contravariant=True)

Deliver = Callable[[list[Delivery[M]]], None]
"""Takes all deliveries of one read, in receive order. Synchronous, never raises, never blocks."""

Released = Callable[[], None]
"""Called when a source holds less than before although nothing was acknowledged: a connection ended or began.

Synchronous, never raises, never blocks.
"""


Received = Callable[[Sequence[Message], int, int], None]
"""A call that brought messages: these, and when it began and ended (Unix time, ns). Synchronous, never raises."""

Acked = Callable[[str, int, int, int, str | None], None]
"""A call that acknowledged: RocketMQ topic, how many messages, when it began and ended (Unix time, ns), and why it
failed as a whole (a reason; None: it did not). Synchronous, never raises."""


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
    ``detail`` is JSON-able and specific to the adapter. ``last_error_ns`` is Unix time in nanoseconds: when the last
    error was, also after it is over; 0 means that there was none.
    """

    name: str
    link: Link
    since_ns: int
    last_error: str | None
    detail: dict[str, Any]
    last_error_ns: int = 0


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


class Service(Protocol):
    """Something that runs in the background: started in the order of the gateway's list, stopped in reverse."""

    @property
    def name(self) -> str:
        """A word for /status."""

    async def start(self) -> None:
        """Begin. Returns as soon as it runs.

        :raises SpanbridgeError: it cannot, and no retry would help.
        """

    async def stop(self) -> None:
        """End, and wait until that is done. Idempotent."""

    def status(self) -> dict[str, Any]:
        """For /status: JSON-able."""


class Source(Protocol[M]):
    """A connection that hands over deliveries and owns their acknowledgements.

    Packet identifiers, sessions, receive order, receipt handles and redeliveries are known inside the adapter only. A
    redelivery of a message that is still in our hands is recognised there, and not handed over twice.
    """

    @property
    def name(self) -> str:
        """The configured name, used in logs and metrics."""

    @property
    def status(self) -> PeerStatus:
        """The connection as of now."""

    @property
    def unacked(self) -> int:
        """Deliveries handed over and answered by neither ack nor nack."""

    @property
    def held(self) -> int:
        """Deliveries in our hands: the unacked ones, and those whose acknowledgement waits for an earlier one."""

    @property
    def held_bytes(self) -> int:
        """The sizes of those deliveries, in bytes."""

    def oldest_ns(self) -> int | None:
        """When the oldest unacked delivery arrived (monotonic, ns); None when there is none."""

    async def run(self, deliver: Deliver[M], released: Released) -> None:
        """Connect, subscribe and deliver until :meth:`close`; reconnect with jittered backoff in between.

        Raises only what no retry can mend. Peers that are away, hang, refuse or send malformed packets are reported,
        not raised.
        """

    def ack(self, deliveries: Sequence[Delivery[M]]) -> None:
        """These are where they belong: acknowledge each as soon as order allows, in one write.

        For MQTT receive order holds (MQTT-4.6.0-2). What the peer will bring again anyway needs no answer, and gets
        none. A second answer to the same delivery changes nothing. Synchronous; never raises.
        """

    def nack(self, deliveries: Sequence[Delivery[M]], cause: str) -> None:
        """These could not be handled: bring them again, whatever that takes (for MQTT a new connection).

        A source whose peer keeps no copy (MQTT QoS 0, or a session that was lost) cannot bring it again; it counts
        that delivery as lost. ``cause`` is one line for the log. Synchronous; never raises.
        """

    def pause(self) -> None:
        """Stop reading: what is in flight is bounded by us, since brokers overrun Receive Maximum. Idempotent."""

    def resume(self) -> None:
        """Read again. Idempotent."""

    def unrepeatable(self) -> list[Delivery[M]]:
        """Unacked deliveries that the peer will not bring again: QoS 0, and those of a session that it lost."""

    async def stop_intake(self) -> None:
        """Deliver nothing more, keep the connection and the session: acknowledgements still go out. Idempotent."""

    async def close(self) -> None:
        """Flush what :meth:`ack` wrote, disconnect in order and keep the session with the peer.

        :meth:`run` returns then. Idempotent.
        """


class QueueSource(Source[M], Protocol[M]):
    """A source whose peer keeps unacknowledged messages in queues: it counts attempts and has dead letters.

    Deliveries stay ours until they are answered, however long that takes: the source renews its hold on them.
    A nack brings a message again after a pause that grows with its attempts, up to those that the group allows.
    """

    def reject(self, deliveries: Sequence[Delivery[M]], cause: str) -> None:
        """These can never be handled: to the consumer group's dead letters, and do not bring them again.

        Where that fails they are nacked. ``cause`` is one line for the log. Synchronous; never raises.
        """

    async def give_back(self) -> None:
        """Before :meth:`close`: hand every unacked delivery back, so that others get it at once. Idempotent."""


class Publication(Protocol):
    """One message for the publisher. The caller's own class; it finds its delivery and trace in there again."""

    @property
    def publish(self) -> Publish:
        """What is to be published; ``expiry`` is what is left of it now."""


Published = Callable[[Sequence[P], SinkError | None], None]
"""The outcome of publications: None when the broker took them. Synchronous, never raises. Many of one read at once."""


class Publisher(Protocol[P]):
    """A connection to an MQTT broker that publishes, and tells of each message once when the broker has it.

    Unlike a :class:`Sink`, the broker answers message by message (PUBACK, PUBCOMP), so outcomes come by callback.
    Messages of one MQTT topic are published in the order given, also after a reconnect (MQTT 5.0 section 4.6).
    """

    @property
    def name(self) -> str:
        """The configured name of the connection, used in logs and metrics."""

    @property
    def status(self) -> PeerStatus:
        """The connection as of now."""

    @property
    def in_flight(self) -> int:
        """Publications taken whose outcome is not known yet, those that wait for a connection included."""

    async def run(self) -> None:
        """Connect, and reconnect with jittered backoff, until :meth:`close`.

        Raises only what no retry can mend. Peers that are away, hang, refuse or send malformed packets are reported.
        """

    def publish(self, publications: Sequence[P], published: Published[P]) -> None:
        """Publish these. ``published`` is called once for each; what the broker has not answered is sent again.

        The outcome is None (QoS 0: written; QoS 1: PUBACK; QoS 2: PUBCOMP), or a
        :class:`~spanbridge.core.errors.SinkError`: ``SinkRejected`` when this message can never go (packet too large,
        topic or payload refused), ``SinkThrottled`` (quota), ``SinkMisconfigured`` (not authorised),
        ``SinkUnavailable`` (unspecified, or the publisher closed first), and ``NoSubscribers`` when the broker took the
        message and says that nobody subscribes (0x10; MQTT 5.0 only). Synchronous; never raises.
        """

    async def close(self) -> None:
        """Stop publishing, disconnect in order; unanswered publications end with ``SinkUnavailable``. Idempotent."""


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


@dataclass(frozen=True, slots=True, order=True)
class TopicQueue:
    """One queue of a RocketMQ topic, on the broker of that name."""

    topic: str
    broker: str
    queue: int


class Offsets(Protocol):
    """Where consumer groups stand in a cluster's queues, asked of its brokers. Reads no message and changes nothing.

    An offset counts the messages of one queue from 0.
    """

    @property
    def requests(self) -> int:
        """Requests sent so far."""

    async def queues(self, topic: str) -> Sequence[TopicQueue]:
        """The queues that can be consumed from; none where there is no such topic.

        :raises OffsetsError: nobody says, here and below.
        """

    async def max_offset(self, queue: TopicQueue) -> int:
        """The offset that the queue's next message will get."""

    async def min_offset(self, queue: TopicQueue) -> int:
        """The offset of the oldest message that the queue still holds."""

    async def offset_at(self, queue: TopicQueue, milliseconds: int) -> int:
        """The offset of the first message stored at this time (Unix time) or later; the max offset where all are older.

        A broker whose store answers otherwise gives the last message's offset where all are older.
        """

    async def committed(self, group: str, queue: TopicQueue) -> int | None:
        """The offset of the group's next message of the queue; None where the group has never committed one."""

    async def members(self, group: str, broker: str) -> int | None:
        """How many consumers of the group this broker knows; None where it does not say."""

    async def ordered(self, broker: str) -> Mapping[str, bool]:
        """The consumer groups that exist on this broker, and whether a group receives in order."""

    async def groups(self, topic: str) -> Sequence[str]:
        """The groups that consume a topic or have offsets in it."""

    async def close(self) -> None:
        """Close the connections. Idempotent; the next call opens them again."""


Written = Callable[[int, SpanbridgeError | None], None]
"""The outcome of an append: the number of the first record, or why none of them is kept. Synchronous, never raises."""


class Spool(Service, Protocol):
    """Records on disk, numbered in the order in which they were appended. Nothing of it blocks the loop."""

    @property
    def first(self) -> int:
        """Records before this number are done, on the disk as well."""

    @property
    def end(self) -> int:
        """The number that the next record gets: all before it are on the disk."""

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""

    @property
    def limit(self) -> int:
        """Bytes that it may take."""

    @property
    def boot(self) -> str:
        """Names the time since the machine started."""

    def append(self, batch: Sequence[tuple[int, bytes]], written: Written) -> None:
        """Put records, as (kind, body), on the disk; ``written`` is told once they are there, or none of them is.

        The error's ``reason`` is ``full`` when there is no room. Never raises.
        """

    async def read(self, count: int, size: int) -> list[Record | Lost]:
        """The next records, up to about so many and so many bytes; empty at the end. One reader at a time.

        :raises SpanbridgeError: the disk fails; nothing was passed over.
        """

    def rewind(self, number: int) -> None:
        """Read from this record on."""

    def boot_of(self, number: int) -> str:
        """As :attr:`boot`, of the time when a record that was read was written; "" where that is not known."""

    def mark(self, number: int, *, tidy: bool = False) -> None:
        """Records before ``number`` are done, and may be removed; with ``tidy`` all their files are. Never raises."""

    async def drop_oldest(self, look: Callable[[Record], None]) -> range:
        """Give up the oldest records, as many as share a file, where each is of a kind that may be dropped.

        Returns their numbers; none when one of them may not, or the disk fails. ``look`` sees each that can be read, on
        another thread; what it saw means nothing where none are given up.
        """
