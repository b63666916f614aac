"""Where single messages go, on the way down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from spanbridge.core.errors import SinkError
from spanbridge.core.message import Publish
from spanbridge.ports.common import PeerStatus

P = TypeVar("P", bound="Publication")


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
