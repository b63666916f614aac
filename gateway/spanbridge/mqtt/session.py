"""The acknowledgements that a source owes its broker. Pure: no sockets, clocks or awaits.

Everything about packet identifiers, receive order and redeliveries is here. One object per source; it outlives
connections, as the broker's session does.

**Order.** An acknowledgement leaves when those of all earlier messages of the connection have left (MQTT-4.6.0-2).

**Redeliveries.** After a reconnect into a resumed session the broker sends again what it holds unacknowledged, with the
DUP flag and the packet identifier it had (MQTT-4.4.0-1, MQTT-3.3.1-1), while the first copies may still be in hand, or
through. Those are recognised, so that a reconnect makes no duplicates: the delivery in hand takes the new packet's
place in the order, and keeps its age and its expiry. Taking another message for one of those would lose it, so only
deliveries are remembered that the broker must still hold under their identifier:

- whose acknowledgement was never written: after that the identifier may stand for another message;
- of this session of the broker's: the next one numbers its messages anew;
- of the last connection, and of those before it only as long as nothing new came: redeliveries come first.

**Copies on one connection.** Brokers exist that send an unacknowledged message again without a reconnect. Such a copy
is held back: it would be forwarded twice, and a second PUBACK could meet the next message under that identifier.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from struct import pack
from typing import NamedTuple, cast

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Publishes
from spanbridge.mqtt.delivery import (
    ACKED,
    ACKED_EARLIER,
    DONE,
    EARLIER,
    IN_ORDER,
    REPEATED,
    UNREPEATABLE,
    MqttDelivery,
)
from spanbridge.mqtt.qos2 import Qos2Receiver

_PUBACK = 0x40_02_0000
_PUBREC = 0x50_02_0000


class Nacked(NamedTuple):
    """What becomes of nacked deliveries: how many the broker can bring ``again``, how many are ``lost``.

    ``renew`` says that it brings some only on a new connection.
    """

    again: int
    lost: int
    renew: bool


class MqttSession:
    """What a client must remember as a receiver. See the module's text.

    ``unacked`` counts deliveries handed over and not answered. ``held`` and ``held_bytes`` count those in hand: the
    unacked ones, and those whose acknowledgement waits for an earlier message.
    """

    __slots__ = (
        "_awaited", "_earlier", "_news", "_order", "_qos2", "_riders", "_unrepeatable", "connections", "held",
        "held_bytes", "live", "number", "resumed", "unacked",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0
        """How many there were, the current one included."""
        self.number = 0
        """Number of the broker's session: grows when a connection finds that it had kept none."""
        self.live = False
        """Whether a connection takes acknowledgements."""
        self.resumed = False
        """Whether the broker had kept the session when the connection began."""
        self.unacked = 0
        self.held = 0
        self.held_bytes = 0
        self._order: deque[MqttDelivery] = deque()
        self._earlier: dict[int, MqttDelivery] = {}
        self._unrepeatable: dict[MqttDelivery, None] = {}
        self._qos2 = Qos2Receiver()
        self._riders: dict[MqttDelivery, list[int]] = {}
        self._news = False
        self._awaited = 0

    # -- connections ------------------------------------------------------------------------------------------------

    def connected(self, *, session_present: bool) -> int:
        """Begin a connection; return how many nacked deliveries went with the broker's session.

        Without a session on the broker's side ours is forgotten too (MQTT-3.2.2-5).
        """
        self.disconnected()
        self.connections += 1
        self.live = True
        self.resumed = session_present
        awaited, self._awaited = self._awaited, 0
        if session_present:
            return 0
        self.number += 1
        self._forget(self._earlier.values())
        self._earlier = {}
        self._qos2.clear()
        return awaited

    def disconnected(self) -> None:
        """End a connection: what it brought is owed no acknowledgement there, but may come again. Idempotent."""
        self.live = False
        self._riders.clear()
        self._qos2.disconnected(self._order)
        if self._news:
            self._forget(self._earlier.values())
            self._earlier = {}
            self._news = False
        for delivery in self._order:
            if delivery.state == DONE:  # nacked
                continue
            replaced = self._earlier.get(delivery.packet_id)
            if replaced is not None:
                self._forget((replaced,))
            self._earlier[delivery.packet_id] = delivery
            if delivery.state == ACKED:
                self._drop(delivery)
                delivery.state = ACKED_EARLIER
            else:
                delivery.state = EARLIER
        self._order = deque()

    @property
    def in_flight(self) -> int:
        """Messages of this connection whose acknowledgement is not written."""
        return len(self._order)

    # -- messages that come -----------------------------------------------------------------------------------------

    def take(self, run: Publishes) -> tuple[list[MqttDelivery], bytes, int]:
        """Account for messages that came.

        Returns those to be delivered, the acknowledgements that may leave at once, and how many were redeliveries of
        what is in hand.
        """
        deliveries = run.deliveries
        if run.plain and not self._earlier:
            self._news = True
            self._order.extend(deliveries)
            count = len(deliveries)
            self.unacked += count
            self.held += count
            self.held_bytes += run.size
            return deliveries, b"", 0
        fresh: list[MqttDelivery] = []
        words: list[int] = []
        adopted = 0
        is_open = {delivery.packet_id for delivery in self._order} if not run.plain else set()
        for delivery in deliveries:
            taken = self._take(delivery, is_open, words)
            if taken is delivery:
                fresh.append(delivery)
            elif taken is not None:
                adopted += 1
        words += self._in_turn()
        return fresh, _bytes(words), adopted

    def _take(self, delivery: MqttDelivery, is_open: set[int], words: list[int]) -> MqttDelivery | None:
        """The delivery itself when it is new, the one in hand that it is a redelivery of, or None: it is held back."""
        qos, packet_id = delivery.message.qos, delivery.packet_id
        dup = delivery.state == REPEATED
        if qos == 0:
            delivery.state = UNREPEATABLE
            self._unrepeatable[delivery] = None
            self._hold(delivery)
            return delivery
        if qos == 1:
            if dup and packet_id in is_open:
                return None
        else:
            deliver, answer = self._qos2.accept(packet_id, dup=dup)
            if not deliver:
                if answer:
                    self._ride(packet_id, words)
                    self._through(packet_id)
                return None
        is_open.add(packet_id)
        if dup:
            in_hand = self._adopt(delivery)
            if in_hand is not None:
                return in_hand
        else:
            self._news = True
            replaced = self._earlier.pop(packet_id, None)  # the identifier names a new message now
            if replaced is not None:
                self._forget((replaced,))
        delivery.state = IN_ORDER
        self._order.append(delivery)
        self._hold(delivery)
        return delivery

    def _adopt(self, again: MqttDelivery) -> MqttDelivery | None:
        """The delivery in hand that this one repeats, now in its place in the order; None when there is none."""
        delivery = self._earlier.get(again.packet_id)
        if delivery is None or not _same(delivery.message, again.message):
            return None
        del self._earlier[again.packet_id]
        if delivery.state == ACKED_EARLIER:
            delivery.state = ACKED
            self.held += 1
            self.held_bytes += delivery.size
        else:
            delivery.state = IN_ORDER
        self._order.append(delivery)
        return delivery

    def _ride(self, packet_id: int, words: list[int]) -> None:
        """Answer a copy of a QoS 2 message again: behind the last message that is still open (MQTT-4.6.0-3)."""
        if self._order:
            self._riders.setdefault(self._order[-1], []).append(_PUBREC | packet_id)
        else:
            words.append(_PUBREC | packet_id)

    def _through(self, packet_id: int) -> None:
        """A message that was acked on an earlier connection has its PUBREC: the identifier may soon name another."""
        delivery = self._earlier.get(packet_id)
        if delivery is not None and delivery.state == ACKED_EARLIER:
            del self._earlier[packet_id]
            delivery.state = DONE

    def pubrel(self, packet_id: int) -> bool:
        """PUBREL came: forget the identifier. False when it was not known (reason code 0x92 in MQTT 5.0)."""
        return self._qos2.pubrel(packet_id)

    # -- answers ----------------------------------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> bytes:
        """Deliveries are where they belong; return the PUBACKs and PUBRECs that may leave now, ready to be written.

        Four bytes each: a remaining length of 2 means reason code 0x00 in MQTT 5.0 (sections 3.4.2.1, 3.5.2.1), which
        makes them the same bytes as in 3.1.1. Acking twice, or what was nacked, changes nothing.
        """
        answered = 0
        for delivery in cast("Sequence[MqttDelivery]", deliveries):  # nobody else makes deliveries of this source
            state = delivery.state
            if state == IN_ORDER:
                delivery.state = ACKED
                answered += 1
            elif state in (EARLIER, UNREPEATABLE):
                self._ack_late(delivery)
        self.unacked -= answered
        order = self._order
        if not order or order[0].state != ACKED:
            return b""
        return _bytes(self._in_turn())

    def _ack_late(self, delivery: MqttDelivery) -> None:
        """A delivery that no connection waits for."""
        self.unacked -= 1
        self._drop(delivery)
        if delivery.message.qos == 2:
            self._qos2.received_late(delivery)
        if delivery.state == EARLIER:
            delivery.state = ACKED_EARLIER
        else:
            self._unrepeatable.pop(delivery, None)
            delivery.state = DONE

    def _in_turn(self) -> list[int]:
        """The acknowledgements that may leave now, in receive order, as numbers of four bytes."""
        order, riders = self._order, self._riders
        words: list[int] = []
        count = size = 0
        while order and order[0].state == ACKED:
            delivery = order.popleft()
            delivery.state = DONE
            count += 1
            size += delivery.size
            packet_id = delivery.packet_id
            if delivery.message.qos == 1:
                words.append(_PUBACK | packet_id)
            else:
                self._qos2.received(packet_id)
                words.append(_PUBREC | packet_id)
            if riders:
                words += riders.pop(delivery, ())
        self.held -= count
        self.held_bytes -= size
        return words

    def nack(self, deliveries: Sequence[Delivery[Publish]]) -> Nacked:
        """Deliveries could not be handled. From now on their redeliveries are new messages.

        The caller ends the connection at once when the result says ``renew``.
        """
        again = lost = 0
        renew = False
        for delivery in cast("Sequence[MqttDelivery]", deliveries):
            state = delivery.state
            if state in (ACKED, ACKED_EARLIER, DONE):
                continue
            self.unacked -= 1
            self._drop(delivery)
            delivery.state = DONE
            if state == UNREPEATABLE:
                self._unrepeatable.pop(delivery, None)
                lost += 1
                continue
            again += 1
            renew = renew or state == IN_ORDER
            if state == EARLIER:
                self._qos2.forget(delivery)
                del self._earlier[delivery.packet_id]
        self._awaited += again
        return Nacked(again, lost, renew)

    # -- what is told -----------------------------------------------------------------------------------------------

    def oldest_ns(self) -> int | None:
        """When the oldest unacked delivery arrived (monotonic, ns); None when there is none.

        Looks at every delivery, since one that was adopted is older than those before it.
        """
        owed = chain(self._earlier.values(), self._order, self._unrepeatable)
        return min((d.arrived_ns for d in owed if d.state in (IN_ORDER, EARLIER, UNREPEATABLE)), default=None)

    def unrepeatable(self) -> list[MqttDelivery]:
        """Unacked deliveries that no broker will send again: QoS 0, and those of a session that it has lost."""
        return list(self._unrepeatable)

    def _forget(self, deliveries: Iterable[MqttDelivery]) -> None:
        """These will not come again."""
        for delivery in deliveries:
            if delivery.state == EARLIER:
                delivery.state = UNREPEATABLE
                self._unrepeatable[delivery] = None
            else:
                delivery.state = DONE

    def _hold(self, delivery: MqttDelivery) -> None:
        self.unacked += 1
        self.held += 1
        self.held_bytes += delivery.size

    def _drop(self, delivery: MqttDelivery) -> None:
        self.held -= 1
        self.held_bytes -= delivery.size


def _bytes(words: list[int]) -> bytes:
    return pack(f">{len(words)}I", *words) if words else b""


def _same(one: Publish, other: Publish) -> bool:
    """Whether two packets carry one message. Brokers count the expiry down, and may set RETAIN anew."""
    return (
        one.topic == other.topic
        and one.payload == other.payload
        and one.qos == other.qos
        and one.user_properties == other.user_properties
        and one.correlation_data == other.correlation_data
    )
