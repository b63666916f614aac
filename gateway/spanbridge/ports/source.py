"""Where deliveries come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Message
from spanbridge.ports.common import PeerStatus

M = TypeVar("M")


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
