"""One network connection to a broker, the same for both protocol versions.

Bytes go through the codec; acknowledgements are the session's business; what a version says differently is asked of
:class:`spanbridge.mqtt.version.Version`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Publish
from spanbridge.mqtt import diagnosis
from spanbridge.mqtt.arrivals import SAMPLE, Arrivals
from spanbridge.mqtt.codec import Decoder, Publishes
from spanbridge.mqtt.codec.packets import (
    ConnackPacket,
    DisconnectPacket,
    Packet,
    PingrespPacket,
    PubrelPacket,
    SubackPacket,
    UnsubackPacket,
)
from spanbridge.mqtt.errors import ConnectError, LostError, PacketError, RefusedError, protocol_error
from spanbridge.mqtt.inbound import Inbound
from spanbridge.mqtt.keepalive import KeepAlive
from spanbridge.mqtt.options import MqttOptions, Subscription
from spanbridge.mqtt.session import Nacked
from spanbridge.mqtt.unread import unread_bytes
from spanbridge.mqtt.version import Accepted, Granted, Version

_PINGREQ = b"\xc0\x00"
_GOODBYE = 2.0
"""Seconds given to the broker to take the last acknowledgements and close after our DISCONNECT."""


class Connection(asyncio.Protocol):
    """Use: create, ``await accepted``, :meth:`subscribe`, ``await closed``.

    ``accepted`` and ``closed`` are futures. ``closed`` ends with the error that ended the connection as its *result*
    (None after :meth:`disconnect`), so that it may go unread.
    """

    def __init__(self, options: MqttOptions, client_id: str, inbound: Inbound, version: Version) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.client_id = client_id
        self.inbound = inbound
        self.session = inbound.session
        self.accepted: asyncio.Future[Accepted] = loop.create_future()
        self.closed: asyncio.Future[Exception | None] = loop.create_future()
        self._loop = loop
        self._version = version
        self._transport: asyncio.Transport | None = None
        self._cause: Exception | None = None
        self._leaving = False
        self._clogged = False
        self._decoder = Decoder(
            inbound.source,
            v5=version.v5,
            limit=options.maximum_packet_size,
            alias_maximum=options.topic_alias_maximum if version.v5 else 0,
        )
        self._arrivals = Arrivals()
        self._look: asyncio.TimerHandle | None = None
        self._keep_alive = KeepAlive()
        self._tick = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._subscribing: dict[int, asyncio.Future[Granted]] = {}
        self._unsubscribing: dict[int, Callable[[], None]] = {}
        self._packet_id = 0
        self._answers = bytearray()

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        clean_start = self.options.clean_start and not self.session.connections
        self.write(self._version.connect(self.options, self.client_id, clean_start=clean_start))

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return
        try:
            if not self.accepted.done() and not self._decoder.partial:  # a piece of CONNACK may look like anything
                diagnosis.check_plain(self.peer, data)
                self._version.check_first(data)
            self._read(data)
        except PacketError as error:
            self.fail(error, code=error.code)
        except (RefusedError, ConnectError) as error:
            self.fail(error)

    def _read(self, data: bytes) -> None:
        """Handle what came, and hand over its messages, also those before a packet that ends the connection.

        :raises SourceError: the connection is to end.
        """
        batch: list[Delivery[Publish]] = []
        now_ns = time.monotonic_ns()
        unix_ns = time.time_ns() - now_ns
        try:
            for piece, arrived_ns in self._arrivals.read(data, now_ns):
                self._decode(piece, unix_ns + arrived_ns, arrived_ns, batch)
        finally:
            self._hand_over(batch)

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

    def _control(self, packet: Packet | Publishes) -> None:
        match packet:
            case PubrelPacket():
                known = self.session.pubrel(packet.packet_id)
                self._answers += self._version.pubcomp(packet.packet_id, known=known)
            case PingrespPacket():
                pass
            case UnsubackPacket():
                gone = self._unsubscribing.pop(packet.packet_id, None)
                if gone is not None and all(code < 0x80 for code in packet.codes):
                    gone()
            case SubackPacket():
                granted = self._version.granted(packet)
                waiter = self._subscribing.pop(packet.packet_id, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(granted)
            case ConnackPacket() if not self.accepted.done():
                self._on_connack(self._version.accepted(packet, self.options, self.client_id))
            case DisconnectPacket():
                self.fail(self._version.ended(packet, self.peer))
            case _:
                raise protocol_error(f"unexpected {type(packet).__name__.removesuffix('Packet').upper()}")

    def _on_connack(self, accepted: Accepted) -> None:
        """The broker took us."""
        lost = self.session.connected(session_present=accepted.session_present)
        accepted.lost = lost
        self.accepted.set_result(accepted)
        self.inbound.released()
        if accepted.keep_alive:
            self._tick = accepted.keep_alive / 4
            self._timer = self._loop.call_later(self._tick, self._on_tick)
        self.apply_pause()

    def pause_writing(self) -> None:
        """The broker does not read. Every packet taken from it would make the answers that wait here grow."""
        self._clogged = True
        self.apply_pause()

    def resume_writing(self) -> None:
        """It reads again."""
        self._clogged = False
        self.apply_pause()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timers_cancel()
        self._detach()
        cause: Exception | None = self._cause
        if cause is None and not self._leaving:
            cause = diagnosis.lost(self.options, exc, accepted=self.accepted.done())
        if not self.accepted.done():
            self.accepted.set_exception(cause or LostError("closed"))
            self.accepted.exception()  # seen: nobody may be waiting any more
        if not self.closed.done():
            self.closed.set_result(cause)

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
        """Read, or do not, as was asked, and only while the broker reads too. CONNACK is always read."""
        transport = self._transport
        if transport is None or transport.is_closing() or not self.accepted.done():
            return
        paused = (self.inbound.paused or self._clogged) and not self.ending
        if paused and transport.is_reading():
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

    async def disconnect(self) -> None:
        """Flush acknowledgements, say DISCONNECT and close. The session stays with the broker.

        A socket closed with unread data in it is reset by the kernel, and the reset can overtake the acknowledgements
        just written (RFC 1122 section 4.2.2.13). So the rest is read, and discarded, until the broker closes.
        """
        if self._transport is None:
            return
        if not self.accepted.done():
            await self.abort()
            return
        self.leave(None)
        await asyncio.wait({self.closed}, timeout=_GOODBYE)
        await self.abort()

    def leave(self, cause: Exception | None) -> None:
        """Say DISCONNECT and read on, discarding, until the broker closes. ``cause`` is what ``closed`` tells."""
        if self.ending or self._transport is None or self._transport.is_closing():
            return
        self.write(self._version.disconnect(0x00))
        self._leaving, self._cause = True, cause
        self._detach()
        self.apply_pause()
        self._timers_cancel()
        self._timer = self._loop.call_later(_GOODBYE, self._transport.abort)

    async def abort(self) -> None:
        """Close at once, and wait until that is done. Nothing to do when no connection was made."""
        if self._transport is not None:
            self._transport.abort()
            await self.closed

    # -- inside -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send; closed or closing transports take nothing."""
        if self._transport is not None and not self._transport.is_closing() and data:
            self._keep_alive.sent = True
            self._transport.write(data)

    def fail(self, error: Exception, *, code: int | None = None) -> None:
        """End the connection for this error; ``code`` is said in a DISCONNECT first."""
        if self.ending or self._transport is None:
            return
        self._cause = error
        self._detach()
        if code is not None and self.accepted.done():
            self.write(self._version.disconnect(code))
        self._transport.close()
        # A peer that does not read keeps the transport's buffer, and so the connection, open.
        self._timers_cancel()
        self._timer = self._loop.call_later(_GOODBYE, self._transport.abort)

    def _detach(self) -> None:
        """Nothing is acknowledged on this connection any more."""
        if self.session.live:
            self.session.disconnected()
            self.inbound.released()

    @property
    def ending(self) -> bool:
        """Whether the connection is being closed, by us or for an error."""
        return self._leaving or self._cause is not None

    @property
    def peer(self) -> str:
        """Host and port of the broker."""
        return self.options.broker

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

    def _on_tick(self) -> None:
        verdict = self._keep_alive.tick(paused=self.inbound.paused)
        if verdict is None:
            what = "sent the rest of a packet" if self._decoder.partial else "answered PINGREQ"
            if self._clogged:
                what = "read what it was sent"
            self.fail(LostError(f"{self.peer} has not {what} for {self._tick * 4:g} s", reason="keep_alive"))
            if self._transport is not None:
                self._transport.abort()  # there is nobody to take what is left, or to say goodbye to in TLS
            return
        if verdict:
            self.write(_PINGREQ)
        self._timer = self._loop.call_later(self._tick, self._on_tick)

    def _timers_cancel(self) -> None:
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()
