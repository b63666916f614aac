"""The connection of a source: subscribes, takes messages in. Acknowledgements are the session's business."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Publish
from spanbridge.mqtt import diagnosis
from spanbridge.mqtt.arrivals import SAMPLE, Arrivals
from spanbridge.mqtt.codec import Answers, Publishes
from spanbridge.mqtt.codec.packets import Packet, PubrelPacket, SubackPacket, UnsubackPacket
from spanbridge.mqtt.connection import Connection
from spanbridge.mqtt.errors import LostError, protocol_error
from spanbridge.mqtt.inbound import Inbound
from spanbridge.mqtt.options import MqttOptions, Subscription
from spanbridge.mqtt.session import Nacked
from spanbridge.mqtt.unread import unread_bytes
from spanbridge.mqtt.version import Accepted, Granted, Version

_PIECE = 32 * 1024
"""Bytes that are looked at before the bound of what is in flight is: a read may bring 256 KiB."""


class IncomingConnection(Connection):
    """Use: create, ``await accepted``, :meth:`subscribe`, ``await closed``."""

    def __init__(self, options: MqttOptions, client_id: str, inbound: Inbound, version: Version) -> None:
        clean_start = options.clean_start and not inbound.session.connections
        super().__init__(options, client_id, version, inbound.source, clean_start=clean_start)
        self.inbound = inbound
        self.session = inbound.session
        self._arrivals = Arrivals()
        self._unread: deque[tuple[bytes, int, int]] = deque()
        """Bytes that were read and not looked at, and when they arrived (Unix time, monotonic; ns)."""
        self._look: asyncio.TimerHandle | None = None
        self._subscribing: dict[int, asyncio.Future[Granted]] = {}
        self._unsubscribing: dict[int, Callable[[], None]] = {}
        self._packet_id = 0
        self._answers = bytearray()

    # -- what comes -------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Handle what came, and hand over its messages, also those before a packet that ends the connection.

        When reading is paused meanwhile, the rest waits.

        :raises SourceError: the connection is to end.
        """
        now_ns = time.monotonic_ns()
        unix_ns = time.time_ns() - now_ns
        unread = self._unread
        for piece, arrived_ns in self._arrivals.read(data, now_ns):
            for at in range(0, len(piece), _PIECE):
                unread.append((piece[at : at + _PIECE], unix_ns + arrived_ns, arrived_ns))
        while unread:
            batch: list[Delivery[Publish]] = []
            try:
                self._decode(*unread.popleft(), batch)
            finally:
                self._hand_over(batch)
            if unread and self._holds:
                break

    def _read_on(self) -> None:
        """Go on with what was read before the pause, then with the socket."""
        if not self._holds:
            self.data_received(b"")
        self.apply_pause()

    @property
    def _holds(self) -> bool:
        """Whether what comes is to wait: messages are not wanted, or the broker does not read. CONNACK never waits.

        Every packet taken from a broker that does not read would make the answers that wait here grow.
        """
        return (self.inbound.paused or self._clogged) and not self.ending and self.accepted.done()

    def _decode(self, data: bytes, received_ns: int, arrived_ns: int, batch: list[Delivery[Publish]]) -> None:
        """Handle all packets that ``data`` completes. Messages to be delivered go to ``batch``.

        :raises SourceError: the connection is to end.
        """
        keep_alive, inbound = self._keep_alive, self.inbound
        keep_alive.piece(len(data))
        for packet in self._decoder.feed(data, received_ns, arrived_ns):
            keep_alive.heard = True
            if type(packet) is not Publishes:
                self._control(packet)
                if self.ending:
                    return
            elif not self.accepted.done():
                raise protocol_error("packet type 3 before CONNACK")
            elif inbound.delivering:
                fresh, answer, adopted = self.session.take(packet)
                batch += fresh
                self._answers += answer
                if adopted:
                    inbound.redelivered(adopted)
            else:
                # The broker keeps QoS 1 and 2 as they get no answer.
                loose = sum(not delivery.message.qos for delivery in packet.deliveries)
                if loose:
                    inbound.discarded(loose)

    def _hand_over(self, batch: list[Delivery[Publish]]) -> None:
        """End a read: send the answers that wait for nobody, deliver the messages."""
        if self._answers:
            self.write(bytes(self._answers))
            self._answers.clear()
        if not batch:
            return
        self.inbound.messages += len(batch)
        deliver = self.inbound.deliver
        if deliver is not None:
            deliver(batch)

    def _control(self, packet: Packet | Publishes | Answers) -> None:
        match packet:
            case PubrelPacket():
                known = self.session.pubrel(packet.packet_id)
                self._answers += self._version.pubcomp(packet.packet_id, known=known)
            case UnsubackPacket():
                gone = self._unsubscribing.pop(packet.packet_id, None)
                if gone is not None and all(code < 0x80 for code in packet.codes):
                    gone()
            case SubackPacket():
                granted = self._version.granted(packet)
                waiter = self._subscribing.pop(packet.packet_id, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(granted)
            case _:
                super()._control(packet)

    def _begin(self, accepted: Accepted) -> None:
        accepted.lost = self.session.connected(session_present=accepted.session_present)
        self.inbound.released()
        self.apply_pause()

    # -- what the source uses ---------------------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        """Acknowledge what may be acknowledged now, in one write."""
        answer = self.session.ack(deliveries)
        if answer:
            self.write(answer)

    def nack(self, deliveries: Sequence[Delivery[Publish]], error: Exception) -> Nacked:
        """Leave, for this error, where that makes the broker send these again."""
        nacked = self.session.nack(deliveries)
        if nacked.renew:
            self.leave(error)
        return nacked

    def apply_pause(self) -> None:
        """Read, or do not."""
        transport = self._transport
        if transport is None or transport.is_closing() or not self.accepted.done():
            return
        paused = self._holds
        if self._unread and not paused:
            self._loop.call_soon(self._read_on)
        elif paused and transport.is_reading():
            transport.pause_reading()
            self._look = self._loop.call_later(SAMPLE, self._on_look)
        elif not paused and not transport.is_reading():
            if self._look is not None:
                self._look.cancel()
            if self._arrivals:
                self._arrivals.look(unread_bytes(transport), time.monotonic_ns())
            transport.resume_reading()

    def _on_look(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._arrivals.look(unread_bytes(self._transport), time.monotonic_ns())
            self._look = self._loop.call_later(SAMPLE, self._on_look)

    async def subscribe(self, subscriptions: Sequence[Subscription], *, fresh: bool) -> list[Granted]:
        """Ask for subscriptions, each in a SUBSCRIBE of its own; the answers in the same order.

        :raises LostError: the connection ended meanwhile, or the broker gave no answer within the connect timeout
            (time in which reading was paused does not count: the answer cannot be seen then, or waits behind messages).
        """
        waiters = [self._subscribe_one(subscription, fresh=fresh) for subscription in subscriptions]
        pending: set[asyncio.Future[Any]] = {waiter for waiter in waiters if not waiter.done()}
        while pending:
            paused, pauses = self.inbound.paused, self.inbound.pauses
            done, _ = await asyncio.wait(
                {*pending, self.closed}, timeout=self.options.connect_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            pending -= done
            if self.closed.done():
                raise self.closed.result() or LostError("closed")
            if not done and not paused and pauses == self.inbound.pauses:
                seconds = self.options.connect_timeout
                self.fail(LostError(f"{self.peer} did not answer SUBSCRIBE within {seconds:g} s", reason="timeout"))
        return [waiter.result() for waiter in waiters]

    def unsubscribe(self, wire_filter: str, gone: Callable[[], None]) -> None:
        """Give up a subscription. ``gone`` is called once the broker says that it is gone."""
        if not self.ending:
            packet_id = self._next_id()
            self._unsubscribing[packet_id] = gone
            self.write(self._version.unsubscribe(wire_filter, packet_id))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _detach(self) -> None:
        """Nothing is acknowledged on this connection any more. What was not looked at is the broker's, as what it has
        not sent."""
        self._unread.clear()
        if self.session.live:
            self.session.disconnected()
            self.inbound.released()

    @property
    def _paused(self) -> bool:
        return self.inbound.paused

    def _subscribe_one(self, subscription: Subscription, *, fresh: bool) -> asyncio.Future[Granted]:
        waiter: asyncio.Future[Granted] = self._loop.create_future()
        refusal = diagnosis.impossible(self.accepted.result(), subscription)
        if refusal is not None:
            waiter.set_result(refusal)
        elif not self.ending:
            packet_id = self._next_id()
            self._subscribing[packet_id] = waiter
            self.write(self._version.subscribe(subscription, packet_id, fresh=fresh))
        return waiter

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 0xFFFF + 1  # none is in use for anything else: we do not publish
        return self._packet_id

    def _timers_cancel(self) -> None:
        super()._timers_cancel()
        if self._look is not None:
            self._look.cancel()
