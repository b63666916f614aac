"""A client of a broker: keeps one connection up, and tells how it is. The same for both directions and versions."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, ClassVar, Generic, TypeVar

from spanbridge.core.errors import SourceError
from spanbridge.mqtt import events
from spanbridge.mqtt.connection import Connection
from spanbridge.mqtt.dial import dial
from spanbridge.mqtt.errors import NackError, RenewedError, StaleSessionError
from spanbridge.mqtt.failures import Failures, event_for
from spanbridge.mqtt.options import MqttOptions
from spanbridge.mqtt.version import Accepted, Version
from spanbridge.ports import Link, PeerStatus, Reporter

O = TypeVar("O", bound=MqttOptions)  # noqa: E741 - options
C = TypeVar("C", bound=Connection)


class MqttClient(ABC, Generic[O, C]):
    """What the source and the publisher share: the life of their connections, one after the other."""

    _kept: ClassVar[str] = "unacknowledged messages stay with the broker"
    """What becomes of messages when a connection ends."""

    def __init__(self, options: O, reporter: Reporter, version: Version) -> None:
        self._options = options
        self._report = reporter.report
        self._version = version
        self._client_id = options.client_id
        self._failures = Failures(options)
        self._connection: C | None = None
        self._accepted: Accepted | None = None
        self._stale = False
        self._change: asyncio.Future[None] | None = None
        self._link = Link.IDLE
        self._since_ns = time.time_ns()
        self._last_error: str | None = None
        self._last_error_ns = 0
        self._closing = False
        self._step: asyncio.Task[None] | None = None
        self._ended: asyncio.Event | None = None

    # -- what a direction adds --------------------------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> C:
        """A connection that is about to be made."""

    @abstractmethod
    async def _serve(self, connection: C, accepted: Accepted) -> None:
        """Use the connection until it ends.

        :raises SourceError: why it ended.
        """

    @abstractmethod
    def _detail(self) -> dict[str, Any]:
        """For ``status``."""

    # -- what both have ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The configured name."""
        return self._options.name

    @property
    def options(self) -> O:
        """What it was made with, or reconfigured to."""
        return self._options

    @property
    def status(self) -> PeerStatus:
        """The connection as of now."""
        return PeerStatus(self.name, self._link, self._since_ns, self._last_error, self._detail(), self._last_error_ns)

    async def _run(self) -> None:
        """Connect, and connect again, until :meth:`_close`.

        :raises RuntimeError: it runs already, or did.
        """
        if self._ended is not None:
            raise RuntimeError(f"{self.name!r} was run before")
        self._ended = asyncio.Event()
        try:
            while not self._closing:
                await self._interruptible(self._connect_and_serve())
        finally:
            self._set_link(Link.CLOSED)
            self._ended.set()

    async def _close(self, *, forget: bool = False) -> None:
        """Flush, disconnect in order; keep the broker's session, unless ``forget``."""
        self._closing = True
        if self._connection is not None:
            await self._connection.disconnect(forget=forget)
        if self._step is not None:
            self._step.cancel()
        if self._ended is None:
            self._set_link(Link.CLOSED)
        else:
            await self._ended.wait()

    def _use(self, options: O, *, renew: bool) -> None:
        """Take over other options; with those that matter to it, or with ``renew``, the connection is made anew."""
        before, self._options = self._options, options
        if before.broker != options.broker:
            self._accepted = None
        self._failures.use(options)
        if renew or before.as_connected() != options.as_connected():
            self._stale = True
            self._leave_stale()

    def _look_again(self) -> None:
        """Have what waits for a change look at the options again."""
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    # -- the life of a connection -----------------------------------------------------------------------------------

    async def _interruptible(self, step: Coroutine[Any, Any, None]) -> None:
        """Await a step that :meth:`_close` may cancel without cancelling the caller."""
        self._step = task = asyncio.ensure_future(step)
        try:
            await asyncio.wait({task})
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            self._step = None
        if not task.cancelled():
            task.result()

    async def _connect_and_serve(self) -> None:
        """One connection from CONNECTING to its end, and the pause after it."""
        loop = asyncio.get_running_loop()
        self._set_link(Link.CONNECTING)
        began: float | None = None
        self._stale, self._change = False, loop.create_future()
        # Known before it is up: what comes on the heels of CONNACK may be acked at once.
        self._connection = connection = self._connect()
        try:
            accepted = await dial(connection, turn=self._failures.turn)
            began = loop.time()
            await self._serve(connection, accepted)
        except SourceError as error:
            self._connection = None
            if self._closing:
                return
            if isinstance(error, StaleSessionError):
                return
            if isinstance(error, RenewedError):
                self._report(events.ConnectionRenewed(source=self.name, broker=self._broker))
                return
            await self._back_off(error, None if began is None else loop.time() - began)
        finally:
            self._connection = None
            await connection.abort()

    def _leave_stale(self) -> None:
        """End a connection that was made with other options. One that is still being made ends once it is accepted."""
        connection = self._connection
        if self._stale and connection is not None and connection.accepted.done():
            connection.leave(RenewedError(f"{self._broker}: renewing the connection, since its options changed"))

    async def _back_off(self, error: SourceError, lasted: float | None) -> None:
        """Report why there is no connection, and wait. ``lasted`` is how long there was one, in seconds."""
        cause, delay = self._failures.failed(error, lasted, self._client_id)
        self._note_error(cause)
        self._set_link(Link.BACKOFF)
        if not isinstance(error, NackError):  # reported when it came
            kind = event_for(error, established=lasted is not None)
            told = {"reason": error.reason, "cause": cause, "retry_in": delay, "kept": self._kept}
            self._report(kind(source=self.name, broker=self._broker, **told))
        assert self._change is not None
        await asyncio.wait({self._change}, timeout=delay)  # other options are tried at once

    @property
    def _broker(self) -> str:
        return self._options.broker

    # -- notes ------------------------------------------------------------------------------------------------------

    def _note_error(self, error: str) -> None:
        self._last_error, self._last_error_ns = error, time.time_ns()

    def _set_link(self, link: Link) -> None:
        if (link is Link.UP) is not (self._link is Link.UP):
            self._since_ns = time.time_ns()
        self._link = link
