"""Calls to one proxy: each with its deadline, its signature, and an error that says what can be done."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial

from spanbridge.core.errors import SinkError
from spanbridge.rocketmq.errors import build, clean
from spanbridge.rocketmq.grpc.answers import TLS, judge_grpc
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.grpc.http2 import hpack
from spanbridge.rocketmq.grpc.http2.call import Arrived, CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.http2.dialler import Dialler
from spanbridge.rocketmq.grpc.http2.errors import Unconnected
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus
from spanbridge.rocketmq.grpc.stubs import SERVICE
from spanbridge.rocketmq.options import RocketmqOptions

LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of one message of an answer. Of a larger one the beginning is handed over."""
_SILENT = 2
"""Deadlines in a row on one connection, without an answer, after which it is taken for dead."""
_NO_ANSWER = CallEnd(GrpcStatus.DEADLINE_EXCEEDED, "no answer in time")
_NO_CONNECTION = CallEnd(GrpcStatus.DEADLINE_EXCEEDED, "no connection in time")


class OpenCall:
    """A call whose messages go on both ways. ``ended`` is done once it has ended."""

    def __init__(self, connection: Http2Connection, call: GrpcCall, ended: asyncio.Future[CallEnd]) -> None:
        self.ended = ended
        self._connection = connection
        self._call = call

    @property
    def unsent(self) -> int:
        """Bytes written that the peer has not taken yet."""
        return self._call.outgoing.size

    def write(self, message: bytes) -> None:
        """Send a message. On a call that has ended nothing happens."""
        if not self.ended.done():
            self._call.outgoing.add(message)
            self._connection.send(self._call)

    def stop(self, fault: Exception | None = None) -> None:
        """End it; with a fault, ``ended`` raises that."""
        self._connection.leave(self._call)
        if self.ended.done():
            return
        if fault is None:
            self.ended.set_result(CallEnd(GrpcStatus.OK))
        else:
            self.ended.set_exception(fault)


class Calls:
    """Makes calls. ``context`` gives the TLS context for a new connection, and may block.

    ``on_silent`` is called when the connection in use has let two deadlines in a row pass without an answer.
    """

    def __init__(
        self,
        address: str,
        options: RocketmqOptions,
        headers: Credentials,
        context: Callable[[], ssl.SSLContext | None],
        on_silent: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self._options = options
        self._headers = headers
        self._context = context
        self._on_silent = on_silent
        self._loop = asyncio.get_running_loop()
        self._paths: dict[tuple[str, float | None], bytes] = {}
        tls = options.tls
        self._dialler = Dialler(
            address,
            context=None if tls is None else context,
            server_name=None if tls is None else tls.server_name,
            timeout=options.connect_timeout,
        )

    # -- calls ------------------------------------------------------------------------------------------------------

    async def call(
        self, method: str, request: bytes, arrived: Arrived, what: str, timeout: float, *, most: int | None = None
    ) -> None:
        """Make a call; ``arrived`` gets the messages of its answer as they come, also those before a failure.

        More than ``most`` messages are a failure. Cancelled, the call is cancelled at the proxy too; what is under way
        of its answer still arrives.

        :raises SinkError: it did not end in order.
        """
        deadline = self._loop.time() + timeout
        connection = self._dialler.current
        if connection is None or not connection.usable:
            connection = await self._connected(what, timeout)
        ended: asyncio.Future[CallEnd] = self._loop.create_future()
        settle = partial(_settle, ended)
        call = GrpcCall(arrived, settle, LARGEST_ANSWER, most)
        call.outgoing.add(request)
        call.outgoing.whole = True
        timer = self._loop.call_at(deadline, settle, _NO_ANSWER)
        connection.begin(call, self._block(method, timeout))
        try:
            outcome = await ended
        finally:
            timer.cancel()
            connection.leave(call)
        if outcome.code is GrpcStatus.OK:
            connection.silent = 0
            return
        if outcome is _NO_ANSWER:
            self._passed(connection)
        elif outcome.code is GrpcStatus.CANCELLED and self._loop.time() >= deadline:
            outcome = _NO_ANSWER  # the proxy was the first to see it
        raise self.error(outcome, what)

    async def unary(self, method: str, request: bytes, what: str, timeout: float) -> bytes | None:
        """The one message of an answer; None when it has none.

        :raises SinkError: the call did not end in order.
        """
        answers: list[bytes] = []
        await self.call(method, request, answers.extend, what, timeout, most=1)
        return answers[0] if answers else None

    async def open(self, method: str, arrived: Arrived, what: str, timeout: float) -> OpenCall:
        """Begin a call whose messages go on both ways. ``timeout`` bounds connecting; the call has no deadline.

        :raises SinkError: there is no connection.
        """
        connection = await self._connected(what, timeout)
        ended: asyncio.Future[CallEnd] = self._loop.create_future()
        call = GrpcCall(arrived, partial(_settle, ended), LARGEST_ANSWER)
        connection.begin(call, self._block(method, None))
        return OpenCall(connection, call, ended)

    def _block(self, method: str, timeout: float | None) -> bytes:
        path = self._paths.get((method, timeout))
        if path is None:
            headers = [(":path", SERVICE + method), ("te", "trailers"), ("content-type", "application/grpc")]
            if timeout is not None:
                headers.append(("grpc-timeout", f"{int(timeout * 1000)}m"))
            path = self._paths[method, timeout] = hpack.encode(headers)
        return path + self._headers.block()

    def _passed(self, connection: Http2Connection) -> None:
        """A deadline passed. Many calls may hang at once: only of the connection in use it means anything."""
        connection.silent += 1
        if connection.silent >= _SILENT and connection is self._dialler.current:
            self._on_silent()

    def error(self, end: CallEnd, what: str) -> SinkError:
        """What it means that a call ended so."""
        cause = self._headers.redact(f"{end.code.name} ({clean(end.details) or 'no details'})")
        return build(judge_grpc(end.code, end.details), what, self.address, cause)

    async def _connected(self, what: str, timeout: float) -> Http2Connection:
        try:
            return await self._dialler.connection(timeout)
        except Unconnected as failure:
            status = GrpcStatus.UNAVAILABLE
            judgement = TLS if failure.tls else judge_grpc(status, "")
            cause = f"{status.name} ({failure})"
        except TimeoutError:
            raise self.error(_NO_CONNECTION, what) from None
        raise build(judgement, what, self.address, cause)

    # -- the connection ---------------------------------------------------------------------------------------------

    async def settled(self, timeout: float) -> None:
        """Wait until what the proxy wrote before now is here, for so many seconds at most."""
        await self._dialler.settled(timeout)

    def renew(self, grace: float | None = None) -> None:
        """Make later calls on a new connection. Those under way may end on the old one, within ``grace`` seconds."""
        self._dialler.renew(grace)

    async def close(self, grace: float = 0.0) -> None:
        """Close the connection; calls under way have ``grace`` seconds to end."""
        await self._dialler.close(grace)


def _settle(ended: asyncio.Future[CallEnd], outcome: CallEnd) -> None:
    if not ended.done():
        ended.set_result(outcome)
