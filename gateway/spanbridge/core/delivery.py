"""A delivery: a message with the duty to acknowledge it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

M = TypeVar("M")


class Acknowledger(Protocol[M]):
    """What takes acknowledgements: the source that made the deliveries."""

    def ack(self, deliveries: Sequence[Delivery[M]]) -> None:
        """See :meth:`spanbridge.ports.Source.ack`."""

    def nack(self, deliveries: Sequence[Delivery[M]], cause: str) -> None:
        """See :meth:`spanbridge.ports.Source.nack`."""


class Delivery(Generic[M]):
    """A message that a source handed over, to be answered once: by :meth:`ack` or by :meth:`nack`.

    ``arrived_ns`` is when it arrived, ``expires_ns`` when its sender no longer wants it delivered (None: never). Both
    are monotonic time in nanoseconds, since Unix time may be set meanwhile. ``size`` is what it takes in memory, in
    bytes. Sources derive their own class and keep there what the acknowledgement needs; nobody else looks at that.
    """

    __slots__ = ("arrived_ns", "expires_ns", "message", "size", "source")

    def __init__(
        self, message: M, source: Acknowledger[M], size: int, arrived_ns: int, expires_ns: int | None = None
    ) -> None:
        self.message = message
        self.source = source
        self.size = size
        self.arrived_ns = arrived_ns
        self.expires_ns = expires_ns

    def ack(self) -> None:
        """The message is where it belongs. Many at once are cheaper through the source."""
        self.source.ack((self,))

    def nack(self, cause: str) -> None:
        """It could not be handled: the source is to bring it again. ``cause`` is one line."""
        self.source.nack((self,), cause)
