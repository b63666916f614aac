"""What is known of topics' routes, and when to ask again. Both protocols keep their routes by this."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from spanbridge.core.errors import SinkError, SinkMisconfigured
from spanbridge.core.events import Event
from spanbridge.ports import Reporter
from spanbridge.rocketmq.errors import CONNECTION_AT_FAULT
from spanbridge.rocketmq.events import RouteRefreshFailed

R = TypeVar("R")

_REFRESHES_AT_ONCE: Final = 8


class TopicRoutes(Generic[R]):
    """Routes by topic: asked for once, refreshed from time to time, forgotten upon errors that blame them.

    ``learned`` is what to report of a route that is new or another than before.
    """

    def __init__(
        self, query: Callable[[str], Awaitable[R]], reporter: Reporter, learned: Callable[[str, R], Event]
    ) -> None:
        self._query = query
        self._reporter = reporter
        self._learned = learned
        self._known: dict[str, R] = {}
        self._asked: dict[str, asyncio.Task[R]] = {}

    @property
    def known(self) -> dict[str, R]:
        """What is known now."""
        return self._known

    async def get(self, topic: str) -> R:
        """The route of a topic, from the cluster if need be; callers that come meanwhile share the answer.

        :raises SinkError: the cluster does not know the topic, or does not answer.
        """
        route = self._known.get(topic)
        return route if route is not None else await asyncio.shield(self._ask(topic))

    def suspect(self, topic: str) -> None:
        """Ask anew in the background: its proxies may have moved. What is known stays until there is an answer."""
        if topic in self._known:
            self._ask(topic)

    def _ask(self, topic: str) -> asyncio.Task[R]:
        task = self._asked.get(topic)
        if task is None:
            task = self._asked[topic] = asyncio.get_running_loop().create_task(self.renew(topic))
            task.add_done_callback(lambda done: self._forget_task(topic, done))
        return task

    def _forget_task(self, topic: str, task: asyncio.Task[R]) -> None:
        del self._asked[topic]
        if not task.cancelled():
            task.exception()  # every caller may be gone: then nobody else looks at it

    async def renew(self, topic: str) -> R:
        """The route of a topic from the cluster, whatever is known.

        :raises SinkError: the cluster does not know the topic, or does not answer.
        """
        route = await self._query(topic)
        before, self._known[topic] = self._known.get(topic), route
        if before != route:
            self._reporter.report(self._learned(topic, route))
        return route

    def invalidate(self, topic: str) -> None:
        """Ask anew when the topic is next needed."""
        self._known.pop(topic, None)

    async def refresh(self) -> None:
        """Ask again for every known topic. What does not answer stays as it is; what is gone is forgotten."""
        topics = list(self._known)
        for start in range(0, len(topics), _REFRESHES_AT_ONCE):
            await asyncio.gather(*(self._refresh(topic) for topic in topics[start : start + _REFRESHES_AT_ONCE]))

    async def _refresh(self, topic: str) -> None:
        try:
            await self.renew(topic)
        except SinkError as error:
            if isinstance(error, SinkMisconfigured) and error.reason not in CONNECTION_AT_FAULT:
                self.invalidate(topic)
            self._reporter.report(RouteRefreshFailed(reason=error.reason, cause=str(error)))

    async def close(self) -> None:
        """End queries that are under way."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
