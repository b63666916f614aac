"""One network connection to a broker, the same for both protocol versions and both directions.

Bytes go through the codec; what a version says differently is asked of :class:`spanbridge.mqtt.version.Version`. What a
connection is for is added by :class:`spanbridge.mqtt.incoming.IncomingConnection` and
:class:`spanbridge.mqtt.outgoing.OutgoingConnection`.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, cast

from spanbridge.core.delivery import Acknowledger
from spanbridge.core.message import Publish
from spanbridge.mqtt import diagnosis
from spanbridge.mqtt.codec import Answers, Decoder, Publishes
from spanbridge.mqtt.codec.packets import ConnackPacket, DisconnectPacket, Packet, PingrespPacket
from spanbridge.mqtt.errors import ConnectError, LostError, PacketError, RefusedError, protocol_error
from spanbridge.mqtt.keepalive import KeepAlive
from spanbridge.mqtt.options import MqttOptions
from spanbridge.mqtt.version import Accepted, Version

_PINGREQ = b"\xc0\x00"
_GOODBYE = 2.0
"""Seconds given to the broker to take the last packets and close after our DISCONNECT."""


class Connection(asyncio.Protocol):
    """Use: create, ``await accepted``, ``await closed``.

    ``accepted`` and ``closed`` are futures. ``closed`` ends with the error that ended the connection as its *result*
    (None after :meth:`disconnect`), so that it may go unread. ``source`` takes the acknowledgements of what comes.
    """

    _publishes: ClassVar[bool] = False
    """Whether answers to PUBLISH are expected."""

    def __init__(
        self,
        options: MqttOptions,
        client_id: str,
        version: Version,
        source: Acknowledger[Publish],
        *,
        clean_start: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.client_id = client_id
        self.accepted: asyncio.Future[Accepted] = loop.create_future()
        self.closed: asyncio.Future[Exception | None] = loop.create_future()
        self._clean_start = clean_start
        self._loop = loop
        self._version = version
        self._transport: asyncio.Transport | None = None
        self._cause: Exception | None = None
        self._leaving = False
        self._clogged = False
        self._decoder = Decoder(
            source,
            v5=version.v5,
            limit=options.maximum_packet_size,
            alias_maximum=options.topic_alias_maximum if version.v5 else 0,
            answers=self._publishes,
        )
        self._keep_alive = KeepAlive()
        self._tick = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # -- what a direction adds --------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Handle what came.

        :raises SourceError: the connection is to end.
        """
        raise NotImplementedError

    def _begin(self, accepted: Accepted) -> None:
        """The broker took us."""

    def _detach(self) -> None:
        """The connection ends: nothing more counts on it. Called more than once."""

    def apply_pause(self) -> None:
        """Something changed that reading may depend on."""

    @property
    def _paused(self) -> bool:
        """Whether reading is paused by us, so that the broker's answers cannot be seen."""
        return False

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.write(self._version.connect(self.options, self.client_id, clean_start=self._clean_start))

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

    def _control(self, packet: Packet | Publishes | Answers) -> None:
        """A packet that no direction has for itself.

        :raises SourceError: the connection is to end.
        """
        match packet:
            case PingrespPacket():
                pass
            case ConnackPacket() if not self.accepted.done():
                self._on_connack(self._version.accepted(packet, self.options, self.client_id))
            case DisconnectPacket():
                self.fail(self._version.ended(packet, self.peer))
            case _:
                raise protocol_error(f"unexpected {type(packet).__name__.removesuffix('Packet').upper()}")

    def _on_connack(self, accepted: Accepted) -> None:
        """The broker took us."""
        self.accepted.set_result(accepted)
        if accepted.keep_alive:
            self._tick = accepted.keep_alive / 4
            self._timer = self._loop.call_later(self._tick, self._on_tick)
        self._begin(accepted)

    def pause_writing(self) -> None:
        """The broker does not read."""
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

    # -- what its owner uses ----------------------------------------------------------------------------------------

    async def disconnect(self, *, forget: bool = False) -> None:
        """Flush what was written, say DISCONNECT and close. The session stays with the broker, unless ``forget``.

        A socket closed with unread data in it is reset by the kernel, and the reset can overtake the packets just
        written (RFC 1122 section 4.2.2.13). So the rest is read, and discarded, until the broker closes.
        """
        if self._transport is None:
            return
        if not self.accepted.done():
            await self.abort()
            return
        self.leave(None, forget=forget)
        await asyncio.wait({self.closed}, timeout=_GOODBYE)
        await self.abort()

    def leave(self, cause: Exception | None, *, forget: bool = False) -> None:
        """Say DISCONNECT and read on, discarding, until the broker closes. ``cause`` is what ``closed`` tells."""
        if self.ending or self._transport is None or self._transport.is_closing():
            return
        self.write(self._version.disconnect(0x00, forget=forget))
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

    @property
    def ending(self) -> bool:
        """Whether the connection is being closed, by us or for an error."""
        return self._leaving or self._cause is not None

    @property
    def peer(self) -> str:
        """Host and port of the broker."""
        return self.options.broker

    def _on_tick(self) -> None:
        verdict = self._keep_alive.tick(paused=self._paused)
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
        if self._timer is not None:
            self._timer.cancel()
