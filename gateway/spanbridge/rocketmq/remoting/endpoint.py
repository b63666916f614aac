"""One name server or broker as a client sees it: a connection, made again when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from spanbridge.core.errors import SinkError
from spanbridge.ports import Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.events import ChannelReplaced, EndpointDown, EndpointUp
from spanbridge.rocketmq.options import RocketmqOptions
from spanbridge.rocketmq.remoting.answers import judge, right_for
from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.client import OnRequest, RemotingClient
from spanbridge.rocketmq.remoting.errors import RemotingError, RemotingRefused, RemotingUnavailable
from spanbridge.rocketmq.remoting.frame import AclKeys
from spanbridge.rocketmq.tls import TlsFiles

T = TypeVar("T")

_SILENT: Final = 2
"""Deadlines in a row after which a connection counts as dead."""


class RemotingEndpoint:
    """``up`` is None until it is known. ``version`` is the broker's (``MQVersion``) once it has taken a heartbeat.

    ``on_change`` is told when it changes; without, nobody is, and neither is the operator.
    """

    def __init__(
        self,
        address: str,
        *,
        options: RocketmqOptions,
        keys: AclKeys | None,
        tls: TlsFiles,
        reporter: Reporter,
        on_change: Callable[[RemotingEndpoint], None] | None,
        on_request: OnRequest | None = None,
    ) -> None:
        self.address = address
        self.up: bool | None = None
        self.version: int | None = None
        self.last_error: str | None = None
        self._options = options
        self._keys = keys
        self._tls = tls
        self._reporter = reporter
        self._on_change = on_change
        self._on_request = on_request
        self._client: RemotingClient | None = None
        self._attempt: asyncio.Task[RemotingClient | RemotingError] | None = None
        self._retiring: dict[asyncio.Task[None], RemotingClient] = {}
        self._silent = 0
        self._sent_away = False
        self.closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_open

    async def ask(self, call: Call[T], what: str, *, body_size: int | None = None, timeout: float | None = None) -> T:
        """Send a request and return what its response says, within ``timeout`` seconds, ``request_timeout`` by default.

        ``body_size`` is of the one message that is sent, for the error's text.

        :raises SinkError: mapped from the response, or from there being none.
        """
        client: RemotingClient | None = None
        try:
            client = await self._connected()
            found = await client.ask(call, timeout=timeout or self._options.request_timeout)
        except RemotingError as error:
            failure = judge(error, what, self.address, self._keys, body_size, right=right_for(call.code))
            if isinstance(error, RemotingRefused):
                self._answered()
            else:
                self._failed(client, failure)
            raise failure from None
        self._answered()
        return found

    async def _connected(self) -> RemotingClient:
        client = self._client
        if client is not None and client.is_open:
            return client
        if self.closed:
            raise RemotingUnavailable("the connection is closed")
        if self._attempt is None:  # all who wait share one attempt, and its failure
            self._attempt = asyncio.get_running_loop().create_task(self._connect())
            self._attempt.add_done_callback(self._attempted)
        attempt = self._attempt
        await asyncio.wait({attempt})
        if attempt.cancelled():  # by close: who waits was not
            raise RemotingUnavailable("the connection is closed")
        made = attempt.result()
        if isinstance(made, RemotingError):
            raise type(made)(str(made), reason=made.reason)
        return made

    async def _connect(self) -> RemotingClient | RemotingError:
        """The connection, or why there is none: an exception that nobody waits for any more would be logged."""
        try:
            client = RemotingClient(
                self.address,
                timeout=self._options.connect_timeout,
                tls=self._tls.context,
                server_name=self._tls.server_name,
                keys=self._keys,
                on_request=self._on_request,
            )
            await client.connect()
        except ValueError as error:  # a route that announces something else than host:port
            return RemotingUnavailable(str(error))
        except RemotingError as error:
            return error
        self._client = client
        return client

    def _attempted(self, _: asyncio.Task[RemotingClient | RemotingError]) -> None:
        self._attempt = None

    def _answered(self) -> None:
        self._silent = 0
        self._sent_away = False
        if self.up is not True:
            self.up = True
            if self._on_change is not None:
                self._reporter.report(EndpointUp(endpoint=self.address))
                self._on_change(self)

    def _failed(self, client: RemotingClient | None, failure: SinkError) -> None:
        self.last_error = str(failure)
        if failure.reason == "go_away":
            again = self._sent_away and client is self._client
            self._sent_away = True
            self._replace(client, "go_away")
            if not again:
                return  # the next connection may do; a broker that stops refuses on that as well
        if failure.reason == "deadline_exceeded" and client is not None and client is self._client:
            self._silent += 1
            if self._silent >= _SILENT:
                self._replace(client, "silent")
        known, self.up = self.up, False
        if self._on_change is None or self.closed:
            return
        if known is not False:
            self._reporter.report(EndpointDown(endpoint=self.address, reason=failure.reason, cause=str(failure)))
        self._on_change(self)

    def renew(self, reason: str) -> None:
        """Use a new connection from now on; requests under way end on the old one."""
        self._replace(self._client, reason)

    def _replace(self, client: RemotingClient | None, reason: str) -> None:
        if client is None or client is not self._client:
            return  # replaced already
        self._client, self._silent = None, 0
        task = asyncio.get_running_loop().create_task(self._retire(client))
        self._retiring[task] = client
        task.add_done_callback(lambda done: self._retiring.pop(done, None))
        if self._on_change is not None:
            self._reporter.report(ChannelReplaced(endpoint=self.address, reason=reason))

    async def _retire(self, client: RemotingClient) -> None:
        """Close a connection once the deadlines of its requests are over."""
        with guarded("closing a connection", self._reporter):
            await asyncio.sleep(self._options.request_timeout)
            await client.close()

    async def finish(self) -> None:
        """Send nothing more, and take what the peer sends until it closes. See :meth:`RemotingClient.finish`."""
        self.closed = True
        if self._client is not None:
            await self._client.finish()
        await self.close()

    async def close(self) -> None:
        """End the connection, and those that it replaced. Idempotent."""
        self.closed = True
        attempt, retiring = self._attempt, dict(self._retiring)
        tasks = [*([attempt] if attempt is not None else []), *retiring]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client, self._client = self._client, None
        for one in (client, *retiring.values()):
            if one is not None:
                await one.close()
