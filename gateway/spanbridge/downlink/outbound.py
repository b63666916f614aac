"""A message on its way to the MQTT broker."""

from __future__ import annotations

from collections.abc import Callable

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Message, Publish
from spanbridge.core.retry import Backoff
from spanbridge.downlink.recipe import DownlinkRecipe
from spanbridge.telemetry import MessageTrace

_SECOND = 1_000_000_000


class Outbound:
    """A delivery as a publication. ``made`` is its PUBLISH without an expiry, ``trace`` its spans.

    ``now`` is the monotonic clock, None for MQTT 3.1.1, which has no expiry. ``expires_ns`` is when the message is no
    longer wanted (monotonic, None: never), ``sent_ns`` when the publisher got it (Unix time). ``backoff`` counts the
    attempts of a message that was parked, ``parked_ns`` is when that was first (monotonic).
    """

    __slots__ = ("backoff", "delivery", "expires_ns", "made", "now", "parked_ns", "recipe", "sent_ns", "trace")

    def __init__(  # noqa: PLR0917 - keyword arguments cost on the hot path
        self,
        delivery: Delivery[Message],
        recipe: DownlinkRecipe,
        made: Publish,
        trace: MessageTrace | None,
        expires_ns: int | None,
        now: Callable[[], int] | None,
    ) -> None:
        self.delivery = delivery
        self.recipe = recipe
        self.made = made
        self.trace = trace
        self.expires_ns = expires_ns
        self.now = now
        self.sent_ns = 0
        self.backoff: Backoff | None = None
        self.parked_ns = 0

    @property
    def publish(self) -> Publish:
        """What is to be published: its Message Expiry Interval is what is left now (MQTT 5.0 section 3.3.2.3.3)."""
        made = self.made
        if self.expires_ns is None or self.now is None:
            return made
        return Publish(
            made.topic,
            made.payload,
            made.qos,
            made.retain,
            made.user_properties,
            made.content_type,
            made.response_topic,
            made.correlation_data,
            max(0, -((self.now() - self.expires_ns) // _SECOND)),
            made.payload_format,
        )
