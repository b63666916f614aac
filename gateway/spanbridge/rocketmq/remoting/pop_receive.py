"""Receiving from one broker by POP: long polls one after the other, two at once while messages come, more if full."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.retry import Backoff
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.remoting.endpoint import RemotingEndpoint
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.pop import pop

_ACCEPTED: Final = 1.0
"""Seconds after which a request counts as accepted: what a broker refuses, it refuses at once."""
_NO_POP: Final = frozenset({"unimplemented", "timer_disabled"})
"""Why a broker hands out nothing by POP, to nobody."""
_WAITING: Final = 2
"""Requests that wait at a broker while messages come: one for what comes while the other's answer is on its way."""
_WAIT: Final = 5.0
"""Seconds that the second of them waits."""
_LAST: Final = 5.0
"""Seconds for what is under way when the receiver is stopped."""


class PopReceiver:
    """Receives from one broker until it is stopped. ``refused`` is told where there is no POP."""

    def __init__(self, broker: str, parts: ConsumerParts, refused: Callable[[], None]) -> None:
        self.broker = broker
        self._options = parts.options
        self._parts = parts
        self._refused = refused
        self._attempt_id = uuid.uuid4().hex
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to receive."""
        self._add(self._keep)

    def _add(self, work: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self) -> None:
        """One request after the other, for ever."""
        backoff = Backoff(self._options.backoff_initial, self._options.backoff_maximum)
        while not self._stopping:
            await self._parts.open.wait()
            pause = self._options.backoff_maximum
            with guarded("receiving", self._parts.reporter):
                try:
                    await self._parts.subscription.learn(self._parts.cluster, self._parts.brokers.address(self.broker))
                    brought = await self._receive(self._options.long_poll)
                except SinkError as error:
                    pause = backoff.next_delay(random.random())  # noqa: S311 - jitter
                    if error.reason in _NO_POP:
                        self._refused()
                    if not self._stopping:
                        self._parts.health.fails(self.broker, bare(error), pause)
                else:
                    backoff.reset()
                    self._parts.health.works(self.broker)
                    self._ask_beside(brought)
                    continue
            if self._stopping:
                return
            await asyncio.sleep(pause)

    def _ask_beside(self, brought: int) -> None:
        """While messages come, two requests wait; while they come back full, several more ask. Order allows but one."""
        if not brought or self._stopping or self._parts.subscription.settings.orderly:
            return
        if len(self._tasks) < min(_WAITING, self._options.calls):
            self._add(partial(self._help, min(_WAIT, self._options.long_poll)))
        elif brought >= self._parts.subscription.batch and len(self._tasks) < self._options.calls:
            self._add(partial(self._help, 0.0))

    async def _help(self, wait: float) -> None:
        """Requests that wait for so many seconds, as long as they bring something; further ones, as long as full."""
        with guarded("receiving", self._parts.reporter):
            try:
                while self._parts.open.is_set() and not self._stopping:
                    brought = await self._receive(wait)
                    full = brought >= self._parts.subscription.batch
                    if not brought or (not full and len(self._tasks) > _WAITING):
                        return
                    self._ask_beside(brought)
            except SinkError:
                return  # the other one meets it as well

    async def _receive(self, wait: float) -> int:
        """One request; how many messages it brought.

        :raises SinkError: it failed.
        """
        subscription = self._parts.subscription
        orderly = subscription.settings.orderly
        call = pop(
            subscription.names,
            subscription.expression,
            subscription.kind,
            at_most=subscription.batch,
            invisible=self._options.invisible,
            wait=wait,
            attempt_id=self._attempt_id if orderly else None,
        )
        what = f"receiving for group {subscription.group!r} from topic {subscription.topic!r}"
        began_ns, started_ns = time.monotonic_ns(), time.time_ns()
        endpoint = self._parts.brokers.long_polls(self.broker)
        accepted = asyncio.get_running_loop().call_later(_ACCEPTED, self._accepted, endpoint)
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            popped = await endpoint.ask(call, what, timeout=wait + self._options.cluster.request_timeout)
        finally:
            accepted.cancel()
            self._asking.discard(task)
        if popped:
            messages = self._parts.take(self.broker, popped, began_ns)
            if messages:
                self._parts.received(messages, started_ns, time.time_ns())
            if orderly:
                # With the same id a broker gives the same messages again, which is how those of an answer that was
                # lost come at once; with another, it finds the queue locked until their invisible time has passed.
                self._attempt_id = uuid.uuid4().hex
        return len(popped)

    def _accepted(self, endpoint: RemotingEndpoint) -> None:
        if endpoint.connected:
            self._parts.health.works(self.broker)

    async def stop(self) -> None:
        """Have the broker forget requests that it keeps open, and take what it has answered."""
        self._stopping = True
        tasks, asking = set(self._tasks), set(self._asking)
        for task in tasks - asking:
            task.cancel()
        if asking:
            await self._parts.brokers.long_polls(self.broker).finish()
            await asyncio.wait(asking, timeout=_LAST)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
