"""The connection of a publisher: writes what the :mod:`spanbridge.mqtt.outbound` session has, reads the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar, Generic

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Answers, Publishes
from spanbridge.mqtt.codec.packets import (
    Packet,
    PubackPacket,
    PubcompPacket,
    PubrecPacket,
    PubrelPacket,
)
from spanbridge.mqtt.connection import Connection
from spanbridge.mqtt.errors import LostError, protocol_error
from spanbridge.mqtt.options import PublisherOptions
from spanbridge.mqtt.outbound import OutboundSession
from spanbridge.mqtt.version import Version
from spanbridge.ports import P

_KINDS = {PubackPacket: 0x40, PubrecPacket: 0x50, PubcompPacket: 0x70}
_MANY = 8
"""Answers in one read from which on the next read waits for more, if there are as many to come (docs/adr/0155)."""
_READ_PAUSE = 0.001
"""Seconds that it waits."""
_LOOKS = 4
"""How often in ``answer_timeout`` it is seen whether the broker answers."""


class _Nobody:
    """The source of messages that were not asked for."""

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        """They are answered as they come."""

    def nack(self, deliveries: Sequence[Delivery[Publish]], cause: str) -> None:
        """They are answered as they come."""


class OutgoingConnection(Connection, Generic[P]):
    """Use: create, ``await accepted``, :meth:`start`, ``await closed``. Outcomes are told as the answers come."""

    _publishes: ClassVar[bool] = True

    def __init__(
        self,
        options: PublisherOptions,
        client_id: str,
        outbound: OutboundSession[P],
        version: Version,
        *,
        clean_start: bool,
    ) -> None:
        super().__init__(options, client_id, version, _Nobody(), clean_start=clean_start)
        self.unasked = 0
        """Messages that came although nothing is subscribed to: answered and discarded."""
        self._outbound = outbound
        self._timeout = options.answer_timeout
        self._started = False
        self._woken = False
        self._answered = False
        self._silent = 0
        self._watch: asyncio.TimerHandle | None = None

    @property
    def clogged(self) -> bool:
        """Whether the broker does not read what it was sent."""
        return self._clogged

    def start(self) -> None:
        """Send what there is, and from now on what comes."""
        if not self.ending and not self.closed.done():
            self._started = True
            self._watch = self._loop.call_later(self._timeout / _LOOKS, self._on_look)
            self._pump()

    def wake(self) -> None:
        """There is more to send: soon, together with what else this turn of the loop brings."""
        if self._started and not self._woken:
            self._woken = True
            self._loop.call_soon(self._on_wake)

    def resume_writing(self) -> None:
        """The broker reads again."""
        super().resume_writing()
        self.wake()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _on_wake(self) -> None:
        self._woken = False
        self._pump()

    def _pump(self) -> None:
        """Write all that may leave while the broker reads. The rest waits where it is bounded by the caller."""
        outbound = self._outbound
        while self._started and not self._clogged:
            data = outbound.take(time.monotonic_ns())
            if not data:
                break
            self.write(data)
        if outbound.outcomes:
            outbound.outcomes.tell()

    def _read(self, data: bytes) -> None:
        """Take answers, tell the outcomes of all of them at once, and send what they let go.

        :raises SourceError: the connection is to end.
        """
        outbound, keep_alive = self._outbound, self._keep_alive
        keep_alive.piece(len(data))
        woken, self._woken = self._woken, True  # what the outcomes bring leaves in the same write
        unanswered = outbound.unanswered
        try:
            for packet in self._decoder.feed(data):
                keep_alive.heard = True
                if type(packet) is Answers and self._started:
                    self._answered = True
                    self.write(outbound.answers(packet.words))
                else:
                    self._control(packet)
                    if self.ending:
                        return
        finally:
            outbound.outcomes.tell()
            self._woken = woken
            self._pump()
        if unanswered - outbound.unanswered >= _MANY <= outbound.unanswered:
            self._read_later()

    def _read_later(self) -> None:
        """Brokers write answer after answer: a read of few costs as much as one of many."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(_READ_PAUSE, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _control(self, packet: Packet | Publishes | Answers) -> None:
        match packet:
            case PubackPacket() | PubrecPacket() | PubcompPacket() if self._started:
                self._answered = True
                said = packet.properties.get("reason_string", "")
                self.write(self._outbound.answer(_KINDS[type(packet)], packet.packet_id, packet.code, said))
            case Answers() if self.accepted.done():  # before anything was sent
                self._outbound.stray += len(packet.words)
            case Publishes() if self.accepted.done():
                self._decline(packet)
            case PubrelPacket() if self.accepted.done():
                self.write(self._version.pubcomp(packet.packet_id, known=True))
            case Publishes() | Answers():
                raise protocol_error("a message or an answer before CONNACK")
            case _:
                super()._control(packet)

    def _decline(self, run: Publishes) -> None:
        """Messages that nobody asked for: a broker may subscribe its clients by itself. Unanswered they come again."""
        self.unasked += len(run.deliveries)
        for delivery in run.deliveries:
            if delivery.message.qos:
                kind = 0x40 if delivery.message.qos == 1 else 0x50
                self.write(bytes((kind, 2)) + delivery.packet_id.to_bytes(2, "big"))

    def _on_look(self) -> None:
        """A broker that answers pings and no PUBLISH is given up."""
        self._silent = 0 if self._answered or not self._outbound.unanswered else self._silent + 1
        self._answered = False
        if self._silent > _LOOKS:
            text = f"{self.peer} has answered no PUBLISH for {self._timeout:g} s"
            self.fail(LostError(f"{text}, {self._outbound.unanswered} are unanswered", reason="no_answer"))
            return
        self._watch = self._loop.call_later(self._timeout / _LOOKS, self._on_look)

    def _detach(self) -> None:
        self._started = False

    def _timers_cancel(self) -> None:
        super()._timers_cancel()
        if self._watch is not None:
            self._watch.cancel()
