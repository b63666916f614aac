"""Calls with one request to one proxy, on an HTTP/2 connection of our own: what a consumer makes all day."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from grpc import StatusCode

from spanbridge.core.errors import SinkError
from spanbridge.rocketmq.errors import build
from spanbridge.rocketmq.grpc.answers import judge_grpc, plain
from spanbridge.rocketmq.grpc.auth import Credentials
from spanbridge.rocketmq.grpc.http2.call import Arrived, CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.stubs import SERVICE
from spanbridge.rocketmq.options import RocketmqOptions

LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of one message of an answer. Of a larger one the beginning is handed over."""
_OTHER_NAME = 62
"""X509_V_ERR_HOSTNAME_MISMATCH (x509_vfy.h)."""
_GRACE = 0.5
"""Seconds by which a deadline of ours is later than the one that the proxy is told."""


def cancelled_from_outside() -> bool:
    """Whether a CancelledError is meant for this task. Others come of what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _why(error: OSError) -> str:
    """Why there is no connection, in gRPC's words where these are known."""
    if isinstance(error, TimeoutError):
        return "connection attempt timed out"
    if isinstance(error, socket.gaierror):
        return "Domain name not found"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _OTHER_NAME:
            return "Hostname Verification Check failed"
        return f"CERTIFICATE_VERIFY_FAILED: {error.verify_message}"
    if isinstance(error, ssl.SSLError) or not error.errno:
        return str(error)
    return os.strerror(error.errno)


class Calls:
    """Makes calls, and connections for them. ``context`` gives the TLS context for a new one, None without TLS.

    It may block.
    """

    def __init__(
        self, address: str, options: RocketmqOptions, headers: Credentials, context: Callable[[], ssl.SSLContext | None]
    ) -> None:
        self.address = address
        self._options = options
        self._headers = headers
        self._context = context
        self._connection: Http2Connection | None = None
        self._dialling: asyncio.Task[Http2Connection] | None = None
        self._closed = False

    async def call(self, method: str, request: bytes, arrived: Arrived, what: str, timeout: float) -> None:
        """Make a call; ``arrived`` gets the messages of its answer as they come, also those before a failure.

        Cancelled, the call is cancelled at the proxy too; what is under way of its answer still arrives.

        :raises SinkError: it did not end in order.
        """
        connection = await self._connected(what)
        ended: asyncio.Future[CallEnd] = asyncio.get_running_loop().create_future()
        call = GrpcCall(
            request, arrived, lambda outcome: None if ended.done() else ended.set_result(outcome), LARGEST_ANSWER
        )
        deadline = ("grpc-timeout", f"{int(timeout * 1000)}m")
        connection.begin(call, SERVICE + method, (deadline, *self._headers.metadata()))
        try:
            async with asyncio.timeout(timeout + _GRACE):
                outcome = await ended
        except TimeoutError:
            self._drop(connection)
            outcome = CallEnd(StatusCode.DEADLINE_EXCEEDED, "no answer in time")
        finally:
            connection.leave(call)
        if outcome.code is not StatusCode.OK:
            raise self._error(outcome.code, outcome.details, what)

    def _error(self, code: StatusCode, details: str, what: str) -> SinkError:
        connection = self._connection
        greeting = self._options.tls is not None and (connection is None or not connection.greeted)
        cause = self._headers.redact(f"{code.name} ({plain(details or 'no details', greeting=greeting)})")
        return build(judge_grpc(code, details), what, self.address, cause)

    async def _connected(self, what: str) -> Http2Connection:
        connection = self._connection
        if connection is not None and connection.usable:
            return connection
        if self._closed:
            raise self._error(StatusCode.CANCELLED, "the client is closed", what)
        if self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())
            self._dialling.add_done_callback(self._dialled)
        try:
            connection = await asyncio.shield(self._dialling)
        except OSError as error:  # TimeoutError is one
            raise self._error(StatusCode.UNAVAILABLE, _why(error), what) from None
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            raise self._error(StatusCode.CANCELLED, "the client is closed", what) from None
        if not connection.usable:
            # In TLS 1.3 the client is through before the server has seen its certificate. Another connection at once
            # would fare no better; who calls waits.
            why = connection.closed.result() if connection.closed.done() else "it is going away"
            raise self._error(StatusCode.UNAVAILABLE, why or "the connection was closed", what)
        return connection

    def _dialled(self, task: asyncio.Task[Http2Connection]) -> None:
        self._dialling = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()

    async def _dial(self) -> Http2Connection:
        host, _, port = self.address.rpartition(":")
        host = host.strip("[]")
        tls = await asyncio.to_thread(self._context)
        name: Any = None
        if tls is not None:
            name = (self._options.tls and self._options.tls.server_name) or host
        async with asyncio.timeout(self._options.connect_timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Http2Connection(self.address, "http" if tls is None else "https"),
                host, int(port), ssl=tls, server_hostname=name,
            )  # fmt: skip
        return connection

    def _drop(self, connection: Http2Connection) -> None:
        """It has not answered: whatever else is under way on it will not be either."""
        connection.close()

    async def settled(self, timeout: float) -> None:
        """Wait until what the proxy wrote before now is here, for so many seconds at most."""
        connection = self._connection
        if connection is not None and not connection.closed.done():
            await asyncio.wait({connection.ping()}, timeout=timeout)

    def renew(self) -> None:
        """Make later calls on a new connection. Those under way end on the old one."""
        if self._connection is not None:
            self._connection.retire()
            self._connection = None

    async def close(self) -> None:
        """Close the connection; calls under way end with an error."""
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, TimeoutError):
                await self._dialling
        if self._connection is not None:
            self._connection.close()
