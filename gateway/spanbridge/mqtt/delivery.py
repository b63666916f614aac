"""The delivery of an MQTT source: a message, and what its acknowledgement needs."""

from __future__ import annotations

from spanbridge.core.delivery import Acknowledger, Delivery
from spanbridge.core.message import Publish

IN_ORDER = 0
"""Of the current connection, not answered."""
ACKED = 1
"""Of the current connection, acked; its acknowledgement waits for an earlier message."""
EARLIER = 2
"""Of a connection that is gone, not answered; the broker may send it again."""
ACKED_EARLIER = 3
"""Acked after its connection had gone, or too late on it: its redelivery is acknowledged at once."""
UNREPEATABLE = 4
"""Not answered, and nobody will send it again: QoS 0, or of a session that is lost."""
DONE = 5
"""Answered for good."""
REPEATED = 8
"""Fresh from the decoder with the DUP flag (which is this bit of the packet's first byte): the session decides."""


class MqttDelivery(Delivery[Publish]):
    """A PUBLISH as it came. ``packet_id`` is 0 for QoS 0; ``state`` is one of the constants above.

    The decoder makes these without calling a constructor, since that takes a third of the time: see
    :meth:`spanbridge.mqtt.codec.Decoder.feed`.
    """

    __slots__ = ("packet_id", "state")

    def __init__(
        self,
        message: Publish,
        source: Acknowledger[Publish],
        size: int,
        arrived_ns: int,
        expires_ns: int | None = None,
        *,
        packet_id: int = 0,
        state: int = IN_ORDER,
    ) -> None:
        super().__init__(message, source, size, arrived_ns, expires_ns)
        self.packet_id = packet_id
        self.state = state
