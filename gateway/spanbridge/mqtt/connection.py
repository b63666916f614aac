"""One network connection to a broker: what both protocol versions share.

A sub-class is the codec: it turns bytes into :class:`Publish` objects and calls back for everything else.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from spanbridge.core.message import Publish
from spanbridge.mqtt.errors import ConnectError, LostError, PacketError, RefusedError, protocol_error, tls_cause
from spanbridge.mqtt.framing import Remainder
from spanbridge.mqtt.options import MqttOptions, Subscription
from spanbridge.mqtt.session import KeepAlive, ReceiverSession
from spanbridge.ports import Connected, Deliver

_PINGREQ = b"\xc0\x00"
_GOODBYE = 2.0
"""Seconds given to the broker to take the last acknowledgements and close after our DISCONNECT."""


@dataclass(slots=True)
class Accepted:
    """What the broker said when it accepted the connection (CONNACK)."""

    session_present: bool
    client_id: str
    keep_alive: int
    maximum_packet_size: int | None = None
    wildcards: bool = True
    shared: bool = True
    session_expiry: int | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The broker's answer to one SUBSCRIBE: ``qos`` or, when refused, ``reason`` (a word) and ``cause``."""

    qos: int | None
    reason: str = ""
    cause: str = ""


class Intake:
    """Where a connection delivers to, shared by all connections of a source."""

    __slots__ = ("careful", "connected", "deliver", "discard", "messages", "open", "paused", "pauses")

    def __init__(self, discard: Callable[[int], None]) -> None:
        self.deliver: Deliver | None = None
        self.connected: Connected | None = None
        self.open = True
        self.paused = False
        self.pauses = 0
        """How often reading was paused: tells whether it was between two moments."""
        self.messages = 0
        self.careful = False
        """Whether strings that are not UTF-8 have come: then packets are checked before the codec sees them."""
        self.discard = discard


class Connection(asyncio.Protocol):
    """Base of the two protocol versions. Use: create, ``await accepted``, :meth:`subscribe`, ``await closed``.

    ``accepted`` and ``closed`` are futures. ``closed`` ends with the error that ended the connection as its *result*
    (None after :meth:`disconnect`), so that it may go unread.
    """

    def __init__(self, options: MqttOptions, client_id: str, session: ReceiverSession, intake: Intake) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.client_id = client_id
        self.session = session
        self.intake = intake
        self.accepted: asyncio.Future[Accepted] = loop.create_future()
        self.closed: asyncio.Future[Exception | None] = loop.create_future()
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._cause: Exception | None = None
        self._leaving = False
        self._clogged = False
        self._rest = Remainder(options.maximum_packet_size)
        self._keep_alive = KeepAlive()
        self._tick = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._subscribing: dict[int, asyncio.Future[Granted]] = {}
        self._packet_id = 0
        self._answers = bytearray()

    # -- the codec's part -------------------------------------------------------------------------------------------

    @abstractmethod
    def send_connect(self) -> None:
        """Write CONNECT."""

    @abstractmethod
    def decode(self, data: bytes) -> int:
        """Handle all whole packets at the front of ``data``; return how many bytes they took.

        :raises PacketError: the broker sent something it must not.
        """

    @abstractmethod
    def send_subscribe(self, subscription: Subscription, *, fresh: bool) -> int:
        """Write SUBSCRIBE, return its packet identifier. ``fresh``: the broker has no session of ours."""

    @abstractmethod
    def send_disconnect(self, code: int) -> None:
        """Write DISCONNECT, where the version has a form for this reason code."""

    @abstractmethod
    def pubcomp(self, packet_id: int, *, known: bool) -> bytes:
        """PUBCOMP in bytes; ``known`` false when no such message is waiting for its PUBREL."""

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.send_connect()

    def data_received(self, data: bytes) -> None:
        self._keep_alive.heard = True
        if self.ending:
            return
        try:
            if not self._rest:  # what follows a piece of CONNACK may well be text
                self._check_plain(data)
            else:
                whole = self._rest.add(data)
                if whole is None:
                    return
                data = whole
            used = self.decode(data)
            if used < len(data):
                self._rest.keep(memoryview(data)[used:])
        except PacketError as error:
            self.fail(error, code=error.code)
        except (RefusedError, ConnectError) as error:
            self.fail(error)

    def _check_plain(self, data: bytes) -> None:
        """A TLS alert (RFC 8446 section 5.1) is what a TLS port says to plain MQTT; text is what other servers say."""
        if self.accepted.done():
            return
        if data[:2] == b"\x15\x03":
            raise ConnectError(f"{self.peer} expects TLS: set tls for this connection", reason="tls_expected")
        line = data.split(b"\n")[0][:40].rstrip()
        if len(line) >= 8 and line.isascii() and line.decode().isprintable():
            raise ConnectError(
                f"{self.peer} is no MQTT broker: it answers CONNECT with {line.decode()!r}", reason="not_mqtt"
            )

    def pause_writing(self) -> None:
        """The broker does not read. Every packet taken from it would make the answers that wait here grow."""
        self._clogged = True
        self.apply_pause()

    def resume_writing(self) -> None:
        """It reads again."""
        self._clogged = False
        self.apply_pause()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer_cancel()
        self.session.disconnected()
        cause: Exception | None = self._cause
        if cause is None and not self._leaving:
            cause = self._lost(exc)
        if not self.accepted.done():
            self.accepted.set_exception(cause or LostError("closed"))
            self.accepted.exception()  # seen: nobody may be waiting any more
        if not self.closed.done():
            self.closed.set_result(cause)

    # -- what the source uses ---------------------------------------------------------------------------------------

    def settle(self, publishes: Sequence[Publish]) -> None:
        """Acknowledge in the order given, in one write."""
        answer = self.session.settle(publishes)
        if answer:
            self.write(answer)

    def apply_pause(self) -> None:
        """Read, or do not, as the intake says, and only while the broker reads too. CONNACK is always read."""
        transport = self._transport
        if transport is None or transport.is_closing() or not self.accepted.done():
            return
        paused = (self.intake.paused or self._clogged) and not self._leaving
        if paused and transport.is_reading():
            transport.pause_reading()
        elif not paused and not transport.is_reading():
            transport.resume_reading()

    async def subscribe(self, subscriptions: Sequence[Subscription], *, fresh: bool) -> list[Granted]:
        """Ask for subscriptions, each in a SUBSCRIBE of its own; the answers in the same order.

        :raises LostError: the connection ended meanwhile, or the broker gave no answer within the connect timeout
            (time in which reading was paused does not count: the answer cannot be seen then, or waits behind messages).
        """
        waiters = [self._subscribe_one(subscription, fresh=fresh) for subscription in subscriptions]
        pending: set[asyncio.Future[Any]] = {waiter for waiter in waiters if not waiter.done()}
        while pending:
            paused, pauses = self.intake.paused, self.intake.pauses
            done, _ = await asyncio.wait(
                {*pending, self.closed}, timeout=self.options.connect_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            pending -= done
            if self.closed.done():
                raise self.closed.result() or LostError("closed")
            if not done and not paused and pauses == self.intake.pauses:
                seconds = self.options.connect_timeout
                self.fail(LostError(f"{self.peer} did not answer SUBSCRIBE within {seconds:g} s", reason="timeout"))
        return [waiter.result() for waiter in waiters]

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
        if not self._leaving and not self._transport.is_closing():
            self.send_disconnect(0x00)
            self._leaving = True
            self._timer_cancel()
            self.session.disconnected()
            self.apply_pause()
        await asyncio.wait({self.closed}, timeout=_GOODBYE)
        await self.abort()

    async def abort(self) -> None:
        """Close at once, and wait until that is done. Nothing to do when no connection was made."""
        if self._transport is not None:
            self._transport.abort()
            await self.closed

    # -- for the sub-classes ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport."""
        self._keep_alive.sent = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def fail(self, error: Exception, *, code: int | None = None) -> None:
        """End the connection for this error; ``code`` is said in a DISCONNECT first."""
        if self._cause is not None or self._transport is None:
            return
        self._cause = error
        self.session.disconnected()
        if code is not None and self.accepted.done():
            self.send_disconnect(code)
        self._transport.close()
        # A peer that does not read keeps the transport's buffer, and so the connection, open.
        self._timer_cancel()
        self._timer = self._loop.call_later(_GOODBYE, self._transport.abort)

    def on_connack(self, accepted: Accepted) -> None:
        """The broker took us."""
        if self.accepted.done():
            return
        self.session.connected(session_present=accepted.session_present)
        self.accepted.set_result(accepted)
        if self.intake.connected is not None:
            self.intake.connected()
        if accepted.keep_alive:
            self._tick = accepted.keep_alive / 4
            self._timer = self._loop.call_later(self._tick, self._on_tick)
        self.apply_pause()

    def take(self, qos: int, packet_id: int, *, dup: bool) -> bool:
        """Account for a message that came; whether it is to be delivered.

        While intake is stopped nothing is: the broker keeps QoS 1 and 2 as they get no answer, QoS 0 is lost, counted.

        :raises PacketError: QoS 1 or 2 without a packet identifier (MQTT-2.2.1-3).
        """
        if not self.intake.open:
            if qos == 0:
                self.intake.discard(1)
            return False
        if qos == 0:
            return True
        if not packet_id:
            raise protocol_error("packet identifier 0")
        if qos == 1:
            return self.session.accept_qos1(packet_id, dup=dup)
        fresh, answer = self.session.accept_qos2(packet_id, dup=dup)
        self._answers += answer
        return fresh

    def on_pubrel(self, packet_id: int) -> None:
        """The broker has our PUBREC and forgets the message: so do we."""
        self._answers += self.pubcomp(packet_id, known=self.session.release(packet_id))

    def on_suback(self, packet_id: int, granted: Granted) -> None:
        """The broker answered a SUBSCRIBE."""
        waiter = self._subscribing.pop(packet_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(granted)

    def hand_over(self, batch: list[Publish]) -> None:
        """End a read: send the answers that wait for nobody, deliver the messages."""
        if self._answers:
            self.write(bytes(self._answers))
            self._answers.clear()
        if not batch:
            return
        self.intake.messages += len(batch)
        deliver = self.intake.deliver
        if deliver is not None:
            deliver(batch)

    def next_packet_id(self) -> int:
        """Identifiers for SUBSCRIBE: none is in use for anything else, as this client does not publish yet."""
        self._packet_id = self._packet_id % 0xFFFF + 1
        return self._packet_id

    @property
    def ending(self) -> bool:
        """Whether the connection is being closed, by us or for an error."""
        return self._leaving or self._cause is not None

    @property
    def peer(self) -> str:
        """Host and port of the broker."""
        return f"{self.options.host}:{self.options.port}"

    def _lost(self, exc: Exception | None) -> LostError:
        if isinstance(exc, ssl.SSLError):
            said = tls_cause(exc)
            # In TLS 1.3 the client is through with its handshake before the broker has seen its certificate.
            hint = "; see tls.cert_file, tls.key_file" if "certificate" in said else ""
            return LostError(f"{self.peer} ended TLS: {said}{hint}", reason="tls")
        how = "reset" if isinstance(exc, ConnectionResetError) else "closed"
        text = f"{self.peer} {how} the connection"
        if isinstance(exc, OSError) and not isinstance(exc, ConnectionResetError):
            text += f" ({exc.strerror or exc})"
        if not self.accepted.done():
            secure = "" if self.options.tls else "expects TLS, "
            text += (
                f" without answering CONNECT: it may be that it {secure}refuses our credentials, "
                f"or does not speak MQTT {self.options.version}"
            )
        return LostError(text)

    def _subscribe_one(self, subscription: Subscription, *, fresh: bool) -> asyncio.Future[Granted]:
        waiter: asyncio.Future[Granted] = self._loop.create_future()
        refusal = self._impossible(subscription)
        if refusal is not None:
            waiter.set_result(refusal)
        elif not self.ending:
            self._subscribing[self.send_subscribe(subscription, fresh=fresh)] = waiter
        return waiter

    def _impossible(self, subscription: Subscription) -> Granted | None:
        """What the broker said in CONNACK it cannot do: asking all the same would end the connection."""
        can = self.accepted.result()
        if subscription.has_wildcard and not can.wildcards:
            return Granted(None, "wildcards_unavailable", "this broker has no wildcard subscriptions")
        if subscription.share is not None and not can.shared:
            return Granted(None, "shared_unavailable", "this broker has no shared subscriptions")
        # fixed header up to 5 bytes, packet identifier 2, properties 1, filter length 2, options 1 (section 3.8)
        size = len(subscription.wire_filter.encode()) + 11
        if can.maximum_packet_size is not None and size > can.maximum_packet_size:
            return Granted(None, "packet_too_large", f"this broker takes packets of {can.maximum_packet_size} bytes")
        return None

    def _on_tick(self) -> None:
        verdict = self._keep_alive.tick(paused=self.intake.paused)
        if verdict is None:
            what = "read what it was sent" if self._clogged else "answered PINGREQ"
            self.fail(LostError(f"{self.peer} has not {what} for {self._tick * 4:g} s", reason="keep_alive"))
            if self._transport is not None:
                self._transport.abort()  # there is nobody to take what is left, or to say goodbye to in TLS
            return
        if verdict:
            self.write(_PINGREQ)
        self._timer = self._loop.call_later(self._tick, self._on_tick)

    def _timer_cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def now_ns() -> int:
    """Unix time in nanoseconds, taken once per socket read."""
    return time.time_ns()
