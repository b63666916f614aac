"""A model of an MQTT broker with one session, and of the wire between: what a gateway may meet, in a test's hands.

Our side of the wire is the real codec and the real session, so that they are judged together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Decoder, Publishes, v5
from spanbridge.mqtt.codec.packets import PubrelPacket
from spanbridge.mqtt.delivery import MqttDelivery
from spanbridge.mqtt.session import MqttSession

IDENTIFIERS = 12
"""Packet identifiers in use, few, so that each comes again soon. The broker waits when all are taken."""

PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x60, 0x70


class Body(bytes):
    """A payload that equals others like it, and still knows which message it belongs to."""

    ident: int

    @classmethod
    def of(cls, ident: int, payload: bytes) -> Body:
        """The payload of message ``ident``."""
        body = cls(payload)
        body.ident = ident
        return body


class ModelBroker:
    """The broker's session, the wire, and the receiver at its other end.

    ``judge`` is called with each message at the moment its acknowledgement is written, ``deliver`` with what a read
    brought. ``marks_dup`` false is a broker that sends again without the DUP flag, as rumqttd does.
    """

    def __init__(
        self,
        judge: Callable[[Publish], None],
        deliver: Callable[[list[MqttDelivery]], None],
        *,
        marks_dup: bool = True,
    ) -> None:
        self.waiting: deque[Publish] = deque()
        self.unacknowledged: dict[int, Publish] = {}
        self.adopted = 0
        self.reads = 0
        self._judge = judge
        self._deliver = deliver
        self._marks_dup = marks_dup
        self._released: dict[int, None] = {}
        self._repeated: dict[int, None] = {}
        self._again: deque[tuple[int, int]] = deque()
        self._identifier = 0
        self._inbound: deque[tuple[int, int, Publish | None, bool]] = deque()
        self._outbound = bytearray()
        self._owed: deque[int] = deque()
        self.begin()

    def begin(self) -> None:
        """A receiver as a gateway that was just started has it."""
        self.cut()
        self.session = MqttSession()

    def ack(self, deliveries: list[MqttDelivery]) -> None:
        """The gateway acks."""
        self._write(self.session.ack(deliveries))

    def nack(self, deliveries: list[MqttDelivery]) -> None:
        """The gateway nacks, and ends the connection where that is asked for."""
        if self.session.nack(deliveries).renew:
            self.cut()

    # -- the wire and the broker ------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self.session.live

    def cut(self) -> None:
        """End the connection: what is on the wire is lost in both directions."""
        self._inbound.clear()
        self._outbound.clear()
        self._again.clear()
        self._repeated.clear()
        self._owed.clear()
        if hasattr(self, "session"):
            self.session.disconnected()

    def connect(self, *, keep: bool) -> None:
        """Begin a connection. Without ``keep`` the broker has forgotten the session, and what it held for it."""
        if not keep:
            self.waiting.clear()
            self.unacknowledged.clear()
            self._released.clear()
            self._identifier = 0
        self._decoder: Any = Decoder(None, v5=True, limit=1000)  # type: ignore[arg-type]
        self.session.connected(session_present=keep)
        self._again = deque([(PUBREL, pid) for pid in self._released] + [(0, pid) for pid in self.unacknowledged])

    def send(self, count: int) -> None:
        """Put packets on the wire: first those that the last connection left open, in their order, then new ones."""
        for _ in range(count):
            if self._again:
                kind, packet_id = self._again.popleft()
                self._inbound.append((kind, packet_id, self.unacknowledged.get(packet_id), self._marks_dup))
            elif self.waiting and len(self._taken) < IDENTIFIERS:
                publish = self.waiting.popleft()
                packet_id = self._number(publish) if publish.qos else 0
                self._inbound.append((0, packet_id, publish, False))

    def repeat(self) -> None:
        """Send again what is not acknowledged within the connection, as some brokers do after some seconds.

        Such an identifier may be acknowledged twice (the second packet crosses the first answer), so that a broker must
        not soon use it for another message.
        """
        if not self._again and self._marks_dup:
            on_the_wire = {packet_id for _, packet_id, _, _ in self._inbound}
            for packet_id, publish in self.unacknowledged.items():
                if packet_id not in on_the_wire:
                    self._repeated[packet_id] = None
                    self._inbound.append((0, packet_id, publish, True))

    def read(self, most: int) -> None:
        """One read of the socket by the gateway, of ``most`` packets, and what it writes at once."""
        if not self.connected:
            return
        data, bodies = bytearray(), deque[Any]()
        for _ in range(min(most, len(self._inbound))):
            kind, packet_id, publish, dup = self._inbound.popleft()
            if kind == PUBREL:
                data += v5.encode(PubrelPacket(packet_id))
            elif publish is not None:
                self._owe(publish, packet_id, dup)
                bodies.append(publish.payload)
                data += v5.encode_publish(publish, packet_id, dup=dup)
        self.reads += 1
        batch: list[MqttDelivery] = []
        for packet in self._decoder.feed(bytes(data), 0, self.reads):
            if isinstance(packet, Publishes):
                for delivery in packet.deliveries:
                    delivery.message.payload = bodies.popleft()  # equal, and it knows which message it belongs to
                fresh, answer, adopted = self.session.take(packet)
                batch += fresh
                self.adopted += adopted
                self._write(answer)
            else:
                self.session.pubrel(packet.packet_id)
                self._outbound += bytes((PUBCOMP, 2)) + packet.packet_id.to_bytes(2, "big")
        if batch:
            self._deliver(batch)

    def hear(self) -> None:
        """The broker reads what the gateway wrote."""
        data, self._outbound = bytes(self._outbound), bytearray()
        for at in range(0, len(data), 4):
            kind, packet_id = data[at], int.from_bytes(data[at + 2 : at + 4], "big")
            if kind == PUBCOMP:
                self._released.pop(packet_id, None)
                continue
            gone = self.unacknowledged.pop(packet_id, None)
            if kind == PUBREC and (gone is not None or packet_id in self._released):
                self._released[packet_id] = None
                self._inbound.append((PUBREL, packet_id, None, False))

    def _owe(self, publish: Publish, packet_id: int, dup: bool) -> None:
        if publish.qos and not (dup and packet_id in self._owed):
            self._owed.append(packet_id)

    def _write(self, answer: bytes) -> None:
        for at in range(0, len(answer), 4):
            packet_id = int.from_bytes(answer[at + 2 : at + 4], "big")
            assert packet_id == self._owed.popleft(), "acknowledgements leave in receive order, once each"
            publish = self.unacknowledged.get(packet_id)
            if publish is not None:
                self._judge(publish)
        self._outbound += answer

    @property
    def _taken(self) -> set[int]:
        return {*self.unacknowledged, *self._released, *self._repeated}

    def _number(self, publish: Publish) -> int:
        while True:
            self._identifier = self._identifier % IDENTIFIERS + 1
            if self._identifier not in self._taken:
                break
        self.unacknowledged[self._identifier] = publish
        return self._identifier
