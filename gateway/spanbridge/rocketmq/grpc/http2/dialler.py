"""A connection to one address: made when it is asked for, and made anew when it has ended."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable

from spanbridge.core.retry import Backoff
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.http2.errors import CLOSED, Unconnected, unconnected

_PAUSE = (0.1, 1.0)
"""Seconds between attempts: a peer that is back is found within a second, and one that is not is left in peace."""
_GONE = "the client is closed"
_LEAVING = "it is going away"


class Dialler:
    """Connects to ``host:port``. ``context`` gives the TLS context for a new connection; it may block.

    ``server_name`` is the name to find in the certificate when it differs from the host, ``timeout`` (seconds) bounds
    one attempt: looking up the name, connecting, TLS, and the peer's first word.
    """

    def __init__(
        self,
        address: str,
        *,
        context: Callable[[], ssl.SSLContext | None] | None,
        server_name: str | None,
        timeout: float,
    ) -> None:
        self.current: Http2Connection | None = None
        """The connection that was made last. It may have ended."""
        self._address = address
        self._context = context
        self._server_name = server_name
        self._timeout = timeout
        self._open: set[Http2Connection] = set()
        self._attempt: asyncio.Task[Http2Connection | Unconnected] | None = None
        self._attempts: set[asyncio.Task[Http2Connection | Unconnected]] = set()
        self._backoff = Backoff(*_PAUSE)
        self._failure: Unconnected | None = None
        self._pause_ends = 0.0
        self._closed = False

    async def connection(self, timeout: float) -> Http2Connection:
        """A connection that takes calls. All who wait share one attempt, and after it a failure for a short pause.

        :raises Unconnected: there is none.
        :raises TimeoutError: there is none after ``timeout`` seconds.
        """
        if self.current is not None and self.current.usable:
            return self.current
        loop = asyncio.get_running_loop()
        if self._closed:
            raise Unconnected(_GONE)
        if self._attempt is None:
            if self._failure is not None and loop.time() < self._pause_ends:
                raise Unconnected(str(self._failure), tls=self._failure.tls)
            self._attempt = loop.create_task(self._try())
            self._attempts.add(self._attempt)
            self._attempt.add_done_callback(self._attempts.discard)
        attempt = self._attempt
        done, _ = await asyncio.wait({attempt}, timeout=timeout)
        if not done:
            raise TimeoutError
        made = Unconnected(_GONE) if attempt.cancelled() else attempt.result()
        if isinstance(made, Unconnected):
            raise Unconnected(str(made), tls=made.tls)
        if not made.usable:
            raise Unconnected(made.closed.result() or CLOSED if made.closed.done() else _LEAVING)
        return made

    async def _try(self) -> Http2Connection | Unconnected:
        try:
            made = await self._dial()
        except Exception:
            if self._attempt is asyncio.current_task():
                self._attempt = None  # who asks next makes another
            raise
        if self._attempt is not asyncio.current_task():  # another connection was asked for meanwhile
            if isinstance(made, Http2Connection):
                made.retire()
            return Unconnected("the connection was replaced")
        self._attempt = None
        if isinstance(made, Unconnected):
            self._failure = made
            pause = self._backoff.next_delay(random.random())  # noqa: S311 - jitter
            self._pause_ends = asyncio.get_running_loop().time() + pause
        else:
            self._failure = None
            self._backoff.reset()
            self.current = made
        return made

    async def _dial(self) -> Http2Connection | Unconnected:
        """One attempt."""
        connection: Http2Connection | None = None
        try:
            async with asyncio.timeout(self._timeout):
                tls = None if self._context is None else await asyncio.to_thread(self._context)
                connection = await self._connect(tls)
                await asyncio.shield(connection.greeted)
        except TimeoutError:
            if connection is not None:
                connection.close()
                return Unconnected("it takes connections and does not answer")
            or_answers = "" if self._context is None else ", or does not answer"
            return Unconnected(f"it does not take connections{or_answers}")
        except (OSError, UnicodeError) as error:
            failure = unconnected(error)
        else:
            if not connection.closed.done():
                return connection
            # In TLS 1.3 the client is through before the server has seen its certificate.
            why = connection.closed.result() or _LEAVING
            failure = Unconnected(why, tls=isinstance(connection.fault, ssl.SSLError))
        if self._context is not None and str(failure) == CLOSED:
            return Unconnected(f"{CLOSED}: it may want a certificate of ours, or refuse it")
        return failure

    async def _connect(self, tls: ssl.SSLContext | None) -> Http2Connection:
        host, _, port = self._address.rpartition(":")
        host = host.strip("[]")
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Http2Connection(self._address, "http" if tls is None else "https"),
            host, int(port), ssl=tls, server_hostname=None if tls is None else self._server_name or host,
        )  # fmt: skip
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    async def settled(self, timeout: float) -> None:
        """Wait until what the peer wrote before now is here, for so many seconds at most."""
        pings = {connection.ping() for connection in self._open if not connection.closed.done()}
        if pings:
            await asyncio.wait(pings, timeout=timeout)

    def renew(self, grace: float | None = None) -> None:
        """Make another connection for what comes. What is under way may end on this one, within ``grace`` seconds."""
        former, self.current, self._attempt, self._failure = self.current, None, None, None
        self._backoff.reset()
        if former is not None:
            former.retire(grace)

    async def close(self, grace: float = 0.0) -> None:
        """Make no more connections, and close those there are; what is under way has ``grace`` seconds to end."""
        self._closed = True
        attempts = set(self._attempts)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        for connection in list(self._open):
            if grace:
                connection.retire(grace)
            else:
                connection.close()
        if lost := [connection.lost for connection in self._open]:
            await asyncio.wait(lost)
