"""QoS 2 as a receiver: a small state machine per packet identifier (MQTT 5.0 section 4.3.3, 3.1.1 section 4.3.3).

    PUBLISH -> OPEN (delivered, not acked) -> acked: PUBREC -> RECEIVED -> PUBREL: PUBCOMP -> forgotten

The PUBREC waits for the ack, since with it the broker may forget the payload. An identifier that was acked when its
connection was already gone is KEPT: the broker sends that message again with DUP set, and it is answered without a
second delivery.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from spanbridge.mqtt.delivery import ACKED, IN_ORDER, MqttDelivery


class Qos2(IntEnum):
    """State of a packet identifier in use by the broker for a QoS 2 message."""

    OPEN = 1
    """Delivered on this connection and not acked: no PUBREC yet."""
    RECEIVED = 2
    """PUBREC sent, PUBREL expected."""
    KEPT = 3
    """Received for good on a connection that is gone; the broker may not know."""


class Qos2Receiver:
    """The identifiers of one session. Pure."""

    __slots__ = ("_orphans", "_states")

    def __init__(self) -> None:
        self._states: dict[int, Qos2] = {}
        self._orphans: dict[int, MqttDelivery] = {}

    def clear(self) -> None:
        """The broker has lost the session."""
        self._states.clear()
        self._orphans.clear()

    def disconnected(self, unwritten: Iterable[MqttDelivery]) -> None:
        """The connection has gone, with the PUBRECs of these deliveries unwritten. Idempotent.

        What is acked among them is KEPT; the others are when they are acked later (:meth:`received_late`).
        """
        self._states = {pid: Qos2.KEPT for pid, state in self._states.items() if state is not Qos2.OPEN}
        for delivery in unwritten:
            if delivery.message.qos == 2 and delivery.state == ACKED:
                self._states[delivery.packet_id] = Qos2.KEPT
            elif delivery.message.qos == 2 and delivery.state == IN_ORDER:
                self._orphans[delivery.packet_id] = delivery

    def accept(self, packet_id: int, *, dup: bool) -> tuple[bool, bool]:
        """Whether to deliver a PUBLISH, and whether to answer it with PUBREC instead.

        A message is held back as a duplicate only where that is certain: within a connection by its identifier
        (MQTT-4.3.3-10), across connections by the identifier and DUP, which a redelivery must carry
        (MQTT-3.3.1-1). In doubt it is delivered: twice is better than never.
        """
        state = self._states.get(packet_id)
        if state is Qos2.OPEN:
            return False, False
        if state is Qos2.RECEIVED or (state is Qos2.KEPT and dup):
            self._states[packet_id] = Qos2.RECEIVED
            return False, True
        self._states[packet_id] = Qos2.OPEN
        self._orphans.pop(packet_id, None)
        return True, False

    def received(self, packet_id: int) -> None:
        """Its PUBREC is being written."""
        self._states[packet_id] = Qos2.RECEIVED

    def received_late(self, delivery: MqttDelivery) -> None:
        """A delivery was acked after its connection had gone, while its session lives.

        It counts only until the broker sends it again: then the new packet carries the duty, and the identifier may
        soon stand for another message.
        """
        if self.forget(delivery):
            self._states[delivery.packet_id] = Qos2.KEPT

    def forget(self, delivery: MqttDelivery) -> bool:
        """A delivery of a connection that has gone is not waited for any more. Whether it was."""
        if self._orphans.get(delivery.packet_id) is not delivery:
            return False
        del self._orphans[delivery.packet_id]
        return True

    def pubrel(self, packet_id: int) -> bool:
        """PUBREL came: forget the identifier. False when it was not known."""
        return self._states.pop(packet_id, None) is not None
