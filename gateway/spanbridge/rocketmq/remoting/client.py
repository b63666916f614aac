"""One connection of the gateway to a name server, broker or proxy, on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar, cast

from spanbridge.rocketmq.remoting.call import Call, CallWriter, answer, split_address
from spanbridge.rocketmq.remoting.errors import FrameError, RemotingError, RemotingUnavailable, one_line
from spanbridge.rocketmq.remoting.frame import AclKeys, Frame, FrameDecoder, HeaderFormat, encode

T = TypeVar("T")

OnRequest = Callable[[Frame], Frame | None]
"""Handles a request of the server (a broker tells of rebalances so); returns the response, or None for none."""

_MOST_UNREAD = 1024 * 1024
"""Bytes of responses that a server may leave unread before it counts as broken."""


class RemotingClient:
    """A connection that carries many requests at once. It is used once: when it has ended, make another.

    What is in flight is bounded by the callers: each waits for its response, and a request is written at once, in the
    order of the calls. A server handles the requests of one connection side by side: who wants order waits for each
    response.

    Args:
        address: ``host:port``.
        timeout: seconds for connecting, and for a response where the call does not say otherwise.
        tls: for a server that wants TLS.
        server_name: the name to find in the server's certificate, when it differs from the host.
        keys: for a server that asks who one is.
        header_format: of the requests; the server chooses that of its responses.
        on_request: for requests of the server; without, they are ignored.

    Raises:
        ValueError: ``address`` is none.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 3.0,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        keys: AclKeys | None = None,
        header_format: HeaderFormat = HeaderFormat.BINARY,
        on_request: OnRequest | None = None,
    ) -> None:
        self.address = address
        self._host, self._port = split_address(address)
        self._timeout = timeout
        self._tls = tls
        self._server_name = server_name
        self._writer = CallWriter(keys, header_format)
        self._on_request = on_request
        self._stream: _Stream | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent: connected, and not ended yet."""
        return self._stream is not None and self._stream.ended is None

    async def connect(self) -> None:
        """Connect, with TLS where asked for.

        :raises RemotingUnavailable: nobody accepted within the timeout, or TLS failed (reason ``tls``).
        """
        what = f"no connection to RocketMQ at {self.address}"
        loop = asyncio.get_running_loop()
        name = None if self._tls is None else self._server_name or self._host
        try:
            async with asyncio.timeout(self._timeout):
                _, self._stream = await loop.create_connection(
                    lambda: _Stream(self.address, self._on_request),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=name,
                )
        except TimeoutError:
            raise RemotingUnavailable(f"{what} within {self._timeout:g} s", reason="timeout") from None
        except ssl.SSLError as error:
            cause = getattr(error, "verify_message", None) or error.reason or "the handshake failed"
            raise RemotingUnavailable(f"{what}: TLS: {one_line(cause)}", reason="tls") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be looked up
            raise RemotingUnavailable(f"{what}: {one_line(str(error)) or type(error).__name__}") from None

    async def ask(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Send a request and return what its response says. ``timeout`` is in seconds.

        A response that comes after the timeout is ignored; the connection stays usable.

        :raises RemotingUnavailable: the connection has ended, or no response came in time (reason ``timeout``).
        :raises RemotingRefused: the server answered with a code that the call does not allow for.
        :raises FrameError: the request does not fit the protocol, or the response lacks what it should hold.
        """
        if self._stream is None:
            raise RemotingUnavailable(f"not connected to RocketMQ at {self.address}")
        seconds = self._timeout if timeout is None else timeout
        opaque, request = self._writer.write(call)
        response = await self._stream.exchange(opaque, request, seconds)
        return answer(call, response, self.address)

    async def wait_ended(self) -> RemotingError:
        """Wait until the connection has ended; the error says why. At once where it was never made."""
        if self._stream is None:
            return RemotingUnavailable(f"not connected to RocketMQ at {self.address}")
        return await self._stream.wait_ended()

    async def finish(self) -> None:
        """End our half of the connection, and wait a moment for what the server has sent before it ends its own.

        It forgets what it keeps open for us then (``PopLongPollingService.wakeUp``). TLS has no such halves, and there
        what it sends meanwhile is lost.
        """
        if self._stream is not None:
            await self._stream.finish()
        await self.close()

    async def close(self) -> None:
        """End the connection. What is in flight fails. Idempotent."""
        if self._stream is not None:
            self._stream.end(RemotingUnavailable(f"the connection to RocketMQ at {self.address} was closed by us"))
            await self._stream.wait_lost()


class _Stream(asyncio.Protocol):
    """Responses go to those who wait for them. ``ended`` says why nothing comes any more."""

    def __init__(self, address: str, on_request: OnRequest | None) -> None:
        self.ended: RemotingError | None = None
        self._address = address
        self._on_request = on_request
        self._decoder = FrameDecoder()
        # A result and never an exception: one that nobody retrieves would be logged by the loop.
        self._waiting: dict[int, asyncio.Future[Frame | None]] = {}
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    async def exchange(self, opaque: int, request: bytes, timeout: float) -> Frame:
        """Write a request and wait for its response."""
        if self.ended is not None or self._transport is None:
            raise self._failure()
        future: asyncio.Future[Frame | None] = asyncio.get_running_loop().create_future()
        self._waiting[opaque] = future
        self._transport.write(request)
        try:
            async with asyncio.timeout(timeout):
                response = await future
        except TimeoutError:
            raise RemotingUnavailable(
                f"no answer from RocketMQ at {self._address} within {timeout:g} s", reason="timeout"
            ) from None
        finally:
            self._waiting.pop(opaque, None)
        if response is None:
            raise self._failure()
        return response

    def end(self, error: RemotingError) -> None:
        """Let everybody know that nothing comes any more, and close. The first reason stays."""
        if self.ended is None:
            self.ended = error
            for future in self._waiting.values():
                if not future.done():
                    future.set_result(None)
            if self._transport is not None:
                self._transport.abort()  # no waiting for a peer that may never read what is left

    async def finish(self) -> None:
        """Write the end of our half, and wait for the server's."""
        if self.ended is None and self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            await self.wait_lost()

    async def wait_ended(self) -> RemotingError:
        """Wait until the transport is gone; return why."""
        await self._lost.wait()
        return self._failure()

    async def wait_lost(self) -> None:
        """Wait until the transport is gone, for a moment at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._lost.wait()

    def _failure(self) -> RemotingError:
        """A fresh error for each caller, so that none holds another's traceback."""
        error = self.ended or RemotingUnavailable(f"not connected to RocketMQ at {self._address}")
        return type(error)(str(error), reason=error.reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of that class

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self.end(FrameError(f"RocketMQ at {self._address}: {error}"))
            return
        for frame in frames:
            if frame.is_response:
                self._answered(frame)
            elif self._on_request is not None:
                self._asked(frame, self._on_request)

    def connection_lost(self, error: Exception | None) -> None:
        cause = "closed by the peer" if error is None else one_line(str(error)) or type(error).__name__
        self.end(RemotingUnavailable(f"the connection to RocketMQ at {self._address} ended: {cause}"))
        self._lost.set()

    def _answered(self, frame: Frame) -> None:
        future = self._waiting.get(frame.opaque)
        if future is not None and not future.done():  # else nobody waits any more
            future.set_result(frame)

    def _asked(self, frame: Frame, handle: OnRequest) -> None:
        response = handle(frame)
        if response is None or frame.is_oneway or self._transport is None or self.ended is not None:
            return
        if self._transport.get_write_buffer_size() > _MOST_UNREAD:
            self.end(RemotingUnavailable(f"RocketMQ at {self._address} asks and does not read our responses"))
            return
        self._transport.write(encode(response))
