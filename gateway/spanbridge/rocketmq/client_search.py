"""Looking for a client while the cluster's protocol is not known: what both ends of ``protocol = "auto"`` do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from spanbridge.core.errors import SinkError, SinkUnavailable, bare
from spanbridge.core.retry import Backoff
from spanbridge.ports import Link, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.cluster_link import ClusterLink
from spanbridge.rocketmq.events import ProtocolUnknown

C = TypeVar("C")

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
"""Seconds before endpoints are asked again."""


class ClientSearch(ClusterLink, Generic[C]):
    """Asks until there is a client. ``find`` asks once: it returns the client, or raises a :class:`SinkError`.

    Belongs to the loop that begins it.
    """

    def __init__(self, find: Callable[[], Awaitable[C]], reporter: Reporter) -> None:
        super().__init__()
        self.made: C | None = None
        self._find = find
        self._reporter = reporter
        self._attempt: asyncio.Task[SinkError | None] | None = None
        self._looking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Ask, and ask again. Once."""
        if self.link is Link.IDLE:
            self.change(Link.CONNECTING)
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while self.made is None:
            with guarded("protocol", self._reporter), suppress(SinkError):
                await self.client()
            if self.made is None:
                await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter

    async def found(self) -> C | None:
        """Wait for the client; None when the search is closed. After :meth:`begin`."""
        assert self._looking is not None
        await asyncio.wait([self._looking])
        return None if self.link is Link.CLOSED else self.made

    async def client(self) -> C:
        """The client; all who wait for it share one attempt to find it, and its failure.

        :raises SinkError: no endpoint says.
        """
        if self.made is None:
            if self.link in {Link.IDLE, Link.CLOSED}:
                raise SinkUnavailable(f"the connection to RocketMQ is {self.link.value}", reason="closed")
            if self._attempt is None:
                self._attempt = asyncio.get_running_loop().create_task(self._try())
                self._attempt.add_done_callback(self._tried)
            attempt = self._attempt
            await asyncio.wait([attempt])
            if attempt.cancelled():
                raise SinkUnavailable("the connection to RocketMQ is closed", reason="closed")
            if (failure := attempt.result()) is not None:
                raise type(failure)(str(failure), reason=failure.reason)
        assert self.made is not None
        return self.made

    async def _try(self) -> SinkError | None:
        """Find it, or return why not: an exception that nobody waits for any more would be logged."""
        try:
            self.made = await self._find()
        except SinkError as failure:
            self.change(Link.BACKOFF)
            self.note_error(str(failure))
            self._reporter.report(ProtocolUnknown(reason=failure.reason, cause=str(failure)))
            return bare(failure)
        return None

    def _tried(self, done: asyncio.Task[SinkError | None]) -> None:
        self._attempt = None
        if not done.cancelled():
            done.exception()  # those who wait may be gone: then nobody else looks at it

    async def close(self) -> None:
        """Ask no more. The client, if there is one, is its user's to close. Idempotent."""
        self.change(Link.CLOSED)
        tasks = [task for task in (self._looking, self._attempt) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
