"""A model of an MQTT broker with one session, and of the wire between: what a gateway may meet, in a test's hands.

Our side of the wire is the real receiver's book-keeping, so that it is judged together with the ledger.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from spanbridge.core.message import Publish
from spanbridge.mqtt.session import ReceiverSession
from spanbridge.ports import Connected, Deliver, Link, PeerStatus

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
    """The broker's session, the wire, and the source at its other end.

    ``judge`` is called with each message at the moment its acknowledgement is written. ``marks_dup`` false is a broker
    that sends again without the DUP flag, as rumqttd does.
    """

    def __init__(self, name: str, judge: Any, *, marks_dup: bool = True) -> None:
        self.name = name
        self.waiting: deque[Publish] = deque()
        self.unacknowledged: dict[int, Publish] = {}
        self.reading = True
        self.deliver: Deliver | None = None
        self._judge = judge
        self._marks_dup = marks_dup
        self._released: dict[int, None] = {}
        self._repeated: dict[int, None] = {}
        self._again: deque[tuple[int, int]] = deque()
        self._identifier = 0
        self._inbound: deque[tuple[int, int, Publish | None, bool]] = deque()
        self._outbound = bytearray()
        self._owed: deque[int] = deque()
        self._on_connected: Connected | None = None
        self.begin()

    # -- the Source port --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A source as a gateway that was just started has it."""
        self.cut()
        self.receiver = ReceiverSession()
        self.reading = True
        self.deliver = self._on_connected = None
        self.closed = asyncio.Event()

    @property
    def epoch(self) -> int:
        return self.receiver.epoch if self.receiver.live else 0

    @property
    def session(self) -> int:
        return self.receiver.number

    @property
    def status(self) -> PeerStatus:
        return PeerStatus(self.name, Link.UP, 0, None, {})

    async def run(self, deliver: Deliver, connected: Connected | None = None) -> None:
        self.deliver, self._on_connected = deliver, connected
        await self.closed.wait()

    def settle(self, publishes: Sequence[Publish]) -> None:
        self._write(self.receiver.settle(publishes))

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    async def stop_intake(self) -> None: ...

    async def close(self) -> None:
        self.closed.set()

    # -- the wire and the broker ------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self.receiver.live

    def cut(self) -> None:
        """End the connection: what is on the wire is lost in both directions."""
        self._inbound.clear()
        self._outbound.clear()
        self._again.clear()
        self._repeated.clear()
        self._owed.clear()
        if hasattr(self, "receiver"):
            self.receiver.disconnected()

    def connect(self, *, keep: bool) -> None:
        """Begin a connection. Without ``keep`` the broker has forgotten the session, and what it held for it."""
        if not keep:
            self.waiting.clear()
            self.unacknowledged.clear()
            self._released.clear()
            self._identifier = 0
        self.receiver.connected(session_present=keep)
        if self._on_connected is not None:
            self._on_connected()
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

    def read(self, now: int, most: int) -> None:
        """One read of the socket by the gateway, of ``most`` packets, and what it writes at once."""
        if not self.reading or not self.connected or self.deliver is None:
            return
        batch: list[Publish] = []
        for _ in range(min(most, len(self._inbound))):
            kind, packet_id, publish, dup = self._inbound.popleft()
            if kind == PUBREL:
                self.receiver.release(packet_id)
                self._outbound += bytes((PUBCOMP, 2)) + packet_id.to_bytes(2, "big")
            elif publish is not None and self._accept(publish, packet_id, dup):
                batch.append(self._copy(publish, packet_id, dup, now))
        if batch:
            self.deliver(batch)

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

    def _accept(self, publish: Publish, packet_id: int, dup: bool) -> bool:
        if not publish.qos:
            return True
        if not (dup and packet_id in self._owed):
            self._owed.append(packet_id)
        if publish.qos == 1:
            return self.receiver.accept_qos1(packet_id, dup=dup)
        fresh, answer = self.receiver.accept_qos2(packet_id, dup=dup)
        self._write(answer)
        return fresh

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

    def _copy(self, publish: Publish, packet_id: int, dup: bool, now: int) -> Publish:
        return Publish(
            publish.topic,
            publish.payload,
            publish.qos,
            dup=dup,
            expiry=publish.expiry,
            fault=publish.fault,
            received_ns=now,
            epoch=self.receiver.epoch,
            packet_id=packet_id,
        )
