"""What a client must remember of an MQTT session as a receiver. Pure: no sockets, clocks or awaits.

QoS 1: a PUBLISH is delivered and its PUBACK leaves when the message is settled. Brokers exist that send it again, with
DUP, when that takes long (EMQX with a retry interval, and older ones; MQTT 5.0 forbids it, section 4.4). Such a copy is
held back: it would go to RocketMQ twice, and a second PUBACK could meet the next message under that identifier.

QoS 2 (MQTT 5.0 section 4.3.3, 3.1.1 section 4.3.3) is a small state machine per packet identifier:

    PUBLISH -> OPEN (delivered, not settled) -> settled: PUBREC -> RECEIVED -> PUBREL: PUBCOMP -> forgotten

The PUBREC waits for the settlement, since with it the broker may forget the payload. An identifier that was settled
when its connection was already gone is KEPT: the broker sends that message again with DUP set, and it is answered
without a second delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from spanbridge.core.message import Publish

_PUBACK = 0x40_02_0000
_PUBREC = 0x50_02_0000


class Qos2(IntEnum):
    """State of a packet identifier in use by the broker for a QoS 2 message."""

    OPEN = 1
    """Delivered on this connection and not settled: no PUBREC yet."""
    RECEIVED = 2
    """PUBREC sent, PUBREL expected."""
    KEPT = 3
    """Received for good on a connection that is gone; the broker may not know."""


class ReceiverSession:
    """Acknowledgements owed to the broker. One per source; it outlives connections as the broker's session does."""

    __slots__ = ("_last", "_orphans", "_qos1", "_qos2", "_riders", "epoch", "in_flight", "live", "number", "resumed")

    def __init__(self) -> None:
        self.epoch = 0
        """Number of the current connection; :attr:`Publish.epoch` of everything it delivers."""
        self.in_flight = 0
        """Messages of this connection that are delivered and not settled."""
        self.live = False
        """Whether that connection takes acknowledgements."""
        self.resumed = False
        """Whether the broker had kept the session when it began."""
        self.number = 0
        """Number of the broker's session: grows when a connection finds that it had kept none."""
        self._qos1: set[int] = set()
        self._qos2: dict[int, Qos2] = {}
        self._orphans: dict[int, int] = {}
        self._riders: dict[int, bytes] = {}
        self._last = 0

    def connected(self, *, session_present: bool) -> None:
        """Begin a connection. Without a session on the broker's side, ours is forgotten too (MQTT-3.2.2-5)."""
        self.epoch += 1
        self.live = True
        self.resumed = session_present
        if not session_present:
            self.number += 1
            self._qos2.clear()
            self._orphans.clear()

    def disconnected(self) -> None:
        """End a connection. What is open becomes an orphan: delivered, unknown to the broker as received."""
        self.live = False
        self.in_flight = 0
        self._last = 0
        self._qos1.clear()
        self._riders.clear()
        orphans = [packet_id for packet_id, state in self._qos2.items() if state is Qos2.OPEN]
        self._orphans.update(dict.fromkeys(orphans, self.epoch))
        self._qos2 = {pid: Qos2.KEPT for pid, state in self._qos2.items() if state is not Qos2.OPEN}

    def accept_qos1(self, packet_id: int, *, dup: bool) -> bool:
        """Whether to deliver a QoS 1 message: not when it is a copy of one that is open on this connection."""
        if dup and packet_id in self._qos1:
            return False
        self._qos1.add(packet_id)
        self.in_flight += 1
        self._last = packet_id
        return True

    def accept_qos2(self, packet_id: int, *, dup: bool) -> tuple[bool, bytes]:
        """Whether to deliver a QoS 2 message, and what to send at once.

        A message is held back as a duplicate only where that is certain: within a connection by its identifier
        (MQTT-4.3.3-10), across connections by the identifier and DUP, which a re-delivery must carry
        (MQTT-3.3.1-1). In doubt it is delivered: twice is better than never.
        """
        state = self._qos2.get(packet_id)
        if state is Qos2.OPEN:
            return False, b""
        if state is Qos2.RECEIVED or (state is Qos2.KEPT and dup):
            self._qos2[packet_id] = Qos2.RECEIVED
            return False, self._in_turn((_PUBREC | packet_id).to_bytes(4, "big"))
        self._qos2[packet_id] = Qos2.OPEN
        self._orphans.pop(packet_id, None)
        self.in_flight += 1
        self._last = packet_id
        return True, b""

    def release(self, packet_id: int) -> bool:
        """PUBREL came: forget the identifier. False when it was not known (reason code 0x92 in MQTT 5.0)."""
        return self._qos2.pop(packet_id, None) is not None

    def settle(self, publishes: Sequence[Publish]) -> bytes:
        """The PUBACKs and PUBRECs for these messages, in their order, ready to be written.

        Four bytes each: a remaining length of 2 means reason code 0x00 in MQTT 5.0 (sections 3.4.2.1, 3.5.2.1), which
        makes them the same bytes as in 3.1.1. Messages of another connection add nothing.
        """
        epoch = self.epoch
        out = bytearray()
        for publish in publishes:
            qos = publish.qos
            if qos == 0:
                continue
            if publish.epoch != epoch or not self.live:
                self._settle_late(publish)
                continue
            self.in_flight -= 1
            packet_id = publish.packet_id
            if qos == 1:
                self._qos1.discard(packet_id)
                out += (_PUBACK | packet_id).to_bytes(4, "big")
            else:
                self._qos2[packet_id] = Qos2.RECEIVED
                out += (_PUBREC | packet_id).to_bytes(4, "big")
            if self._riders:
                out += self._riders.pop(packet_id, b"")
        return bytes(out)

    def _settle_late(self, publish: Publish) -> None:
        """Remember a QoS 2 message that was settled after its connection had gone, while its session lives.

        Only until the broker sends it again: then the new delivery carries the duty, and the identifier may soon
        stand for another message.
        """
        if publish.qos == 2 and self._orphans.get(publish.packet_id) == publish.epoch:
            del self._orphans[publish.packet_id]
            self._qos2[publish.packet_id] = Qos2.KEPT

    def _in_turn(self, answer: bytes) -> bytes:
        """Answers keep the order of the messages (MQTT-4.6.0-3): behind the last message that is still open."""
        if not self.in_flight:
            return answer
        self._riders[self._last] = self._riders.get(self._last, b"") + answer
        return b""


class TopicAliases:
    """Inbound topic aliases of one connection (MQTT 5.0 section 3.3.2.3.4)."""

    __slots__ = ("_topics", "maximum")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._topics: dict[int, str] = {}

    def resolve(self, alias: int, topic: str) -> str | None:
        """The topic meant. An alias with a topic is learnt. None when the alias stands for nothing yet.

        :raises ValueError: zero or over the maximum we told the broker.
        """
        if not 0 < alias <= self.maximum:
            raise ValueError(f"topic alias {alias} where {self.maximum} is the maximum")
        if topic:
            self._topics[alias] = topic
            return topic
        return self._topics.get(alias)

    def forget(self) -> None:
        """A packet went by that may have given an alias another topic, unread: better none than a wrong one."""
        self._topics.clear()


class KeepAlive:
    """When to send PINGREQ and when to call the broker dead, in ticks of a quarter of the keep-alive interval.

    A ping leaves when for one tick nothing was sent or nothing was heard, so never later than half the interval after
    the last packet (MQTT-3.1.2-20). A broker that says nothing for three ticks after a ping is dead. While reading is
    paused its answers cannot be seen, and it is not blamed for that; the pings go out all the same.
    """

    __slots__ = ("_silent", "_waiting", "heard", "sent")

    def __init__(self) -> None:
        self.sent = True
        self.heard = True
        self._waiting = False
        self._silent = 0

    def tick(self, *, paused: bool) -> bool | None:
        """True: send a ping. False: nothing to do. None: the broker is dead."""
        sent, heard = self.sent, self.heard
        self.sent = self.heard = False
        if heard or paused:
            self._waiting, self._silent = self._waiting and not heard, 0
        elif self._waiting:
            self._silent += 1
            if self._silent >= 3:
                return None
        if sent and heard:
            return False
        self._waiting = True
        return True
