"""HTTP/1.1 for the admin server: h11 reads and writes the protocol, this module moves its bytes (ADR 0060).

The one module of the package that imports h11, which is why the package loads it on start only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import cast

import h11

from spanbridge.admin.pages import Answer, LaterAnswer, Request, error

Respond = Callable[[Request], Answer | LaterAnswer]
"""Never raises, and what a :class:`LaterAnswer` makes does not either."""

_IDLE_TIMEOUT = 75.0
"""Seconds a connection may take for its next request, from the first byte to the last as well."""
_MAX_REQUEST = 16384
"""Bytes of a request's line and headers. h11 counts while a request is incomplete; many come in one read."""
_MAX_CONNECTIONS = 64
_REFUSALS = {
    431: "the request is too large",
    505: "this server speaks HTTP/1.1 (and 1.0) only",
}
_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Server", "spanbridge"))


class HttpProtocol(asyncio.Protocol):
    """One connection. Pages are made synchronously, but for those that take a while: nothing is read until they end.

    Requests that came together are answered one in a turn of the loop, and only as the peer takes the answers: messages
    pass on the same loop, and what waits here is in memory. ``connections`` has all of them, idle longest first.
    """

    def __init__(self, respond: Respond, connections: dict[HttpProtocol, None]) -> None:
        self._respond = respond
        self._connections = connections
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST)
        self._transport: asyncio.Transport | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None
        self._pending: asyncio.Task[None] | None = None
        self._writable = True
        self._head = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection. Where there are too many, the one idle longest goes: probes have to get through."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        if len(self._connections) >= _MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.abort()
        self._touch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for handle in (self._idle, self._next, self._pending):
            if handle is not None:
                handle.cancel()
        self._connections.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """The peer sends no more; returning None closes the connection. Nothing waits: reading pauses until then."""
        self._http.receive_data(b"")
        self._advance()

    def pause_writing(self) -> None:
        """The peer does not take what is written."""
        self._writable = False

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._advance()

    def close(self) -> None:
        """Close once what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        """Answer one request; read on when it was the last one here and the peer has taken the answers."""
        if self._transport is None or self._transport.is_closing() or self._pending is not None:
            return
        try:
            waiting = self._writable and self._answer_next()
        except h11.RemoteProtocolError as cause:
            self._refuse(cause.error_status_hint)
            return
        except h11.LocalProtocolError:  # a request that h11 knows no answer to
            self.abort()
            return
        if self._transport.is_closing():
            return
        if self._pending is not None:
            self._transport.pause_reading()
            return
        if self._writable and not waiting:
            self._transport.resume_reading()
            return
        self._transport.pause_reading()
        if self._writable:
            self._next = asyncio.get_running_loop().call_soon(self._advance)

    def _answer_next(self) -> bool:
        """Handle one event; whether more than that was received."""
        event = self._http.next_event()
        if isinstance(event, h11.Request):
            self._head = event.method == b"HEAD"
        if isinstance(event, h11.Request) and not event.http_version.startswith(b"1."):
            self._refuse(505)
        elif isinstance(event, h11.Request) and _size(event) > _MAX_REQUEST:
            self._refuse(431)
        elif isinstance(event, h11.Request):
            # No page takes a body. One that comes all the same is not waited for: the connection ends instead.
            complete = isinstance(self._http.next_event(), h11.EndOfMessage)
            answer = self._make(event)
            if isinstance(answer, Answer):
                return self._finish(answer, complete=complete)
            self._pending = asyncio.get_running_loop().create_task(self._wait(answer, complete=complete))
            self._rest()
        elif isinstance(event, h11.ConnectionClosed):
            self.close()
        return False

    def _finish(self, answer: Answer, *, complete: bool) -> bool:
        """Send an answer; whether more than its request was received."""
        self._send(answer, keep=complete)
        if complete and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._head = False
            self._touch()
            return bool(self._http.trailing_data[0])
        self.close()
        return False

    async def _wait(self, pending: LaterAnswer, *, complete: bool) -> None:
        """Answer once that can be done, and go on with what was received since."""
        answer = await pending.make()
        self._pending = None
        self._finish(answer, complete=complete)
        self._advance()

    def _make(self, request: h11.Request) -> Answer | LaterAnswer:
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        host, target = headers.get(b"host"), request.target.decode("latin-1")
        if target.lower().startswith("http://"):  # RFC 9112 section 3.2.2: has to be taken, and replaces Host
            host, slash, rest = target[7:].partition("/")
            target = f"/{rest}" if slash else "/"
        path, _, query = target.partition("?")
        return self._respond(
            Request(
                method=request.method.decode("ascii"),
                path=path,
                query=query,
                host=host,
                accept=headers.get(b"accept", ""),
                authorization=headers.get(b"authorization", ""),
                peer=self._peer(),
            )
        )

    def _peer(self) -> str:
        """Address of who asks."""
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(name[0]) if name else "somebody"

    def _send(self, answer: Answer, *, keep: bool) -> None:
        headers = [
            *_HEADERS,
            *answer.headers.items(),
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
        ]
        if not keep:
            headers.append(("Connection", "close"))
        parts = [self._http.send(h11.Response(status_code=answer.status, headers=headers))]
        if not self._head:  # no body follows, whatever the status (RFC 9110 section 9.3.2)
            parts.append(self._http.send(h11.Data(data=answer.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        if self._transport is not None:
            self._transport.write(b"".join(part for part in parts if part))

    def _refuse(self, status: int) -> None:
        """Tell a peer that does not speak HTTP, without repeating to it what it sent."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(error(status, _REFUSALS.get(status, "the request is not valid HTTP/1.1")), keep=False)
        self.close()

    def _rest(self) -> None:
        """The peer waits for us: its time does not run."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _touch(self) -> None:
        """Something came of this connection: it is the last to go now, and its time starts anew."""
        self._connections.pop(self, None)
        self._connections[self] = None
        self._rest()
        self._idle = asyncio.get_running_loop().call_later(_IDLE_TIMEOUT, self.abort)


def _size(request: h11.Request) -> int:
    """Bytes of its line and headers, but for what separates them."""
    return len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
