"""Getting encoded messages stored: which requests to make of a batch, in which order, to which proxy, how often.

A proxy of RocketMQ up to 5.5.0 chooses the queue of a request by its first message's group only when the request holds
one message; a request of several goes to the next queue in turn, whatever their groups
(``SendMessageActivity.SendMessageQueueSelector``). And the broker's timer looks at single messages only. Hence:

- no group: one request for the batch, any proxy;
- a group, and the topic has one writable queue: one request for the batch, which cannot land elsewhere;
- a group, and several queues: one request a message, one at a time within a group, groups side by side;
- a delivery timestamp: one request a message, side by side.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable, bare
from spanbridge.core.retry import Backoff
from spanbridge.ports import Reporter
from spanbridge.rocketmq.errors import STORED_ANYWAY
from spanbridge.rocketmq.events import SendRetried
from spanbridge.rocketmq.grpc.encode import DELAYED
from spanbridge.rocketmq.grpc.endpoint import Endpoint
from spanbridge.rocketmq.grpc.routes import ProxyRoute, Target, addresses_of
from spanbridge.rocketmq.grpc.stubs import service
from spanbridge.rocketmq.options import RocketmqOptions

_OVERHEAD = 256
"""Bytes by which the broker's form of a message may exceed ours: system properties it adds, and framing."""

# The error that decides what happens to a batch, when several requests of it failed: what an operator must mend comes
# first, and content is blamed last, since blame makes the caller take the batch apart.
_GRAVITY: tuple[type[SinkError], ...] = (SinkMisconfigured, SinkUnavailable, SinkThrottled, SinkRejected)


class RequestPart(NamedTuple):
    """What one request holds of a batch: the messages, and their indexes in the batch."""

    indexes: Sequence[int]
    messages: Sequence[bytes]


class Dispatcher:
    """Sends batches along routes. ``endpoint`` gives the endpoint for an address, ``retry`` a fresh backoff."""

    def __init__(
        self,
        options: RocketmqOptions,
        endpoint: Callable[[str], Endpoint],
        retry: Callable[[], Backoff],
        reporter: Reporter,
    ) -> None:
        self.max_request_bytes = 4 * 1024 * 1024
        self._options = options
        self._endpoint = endpoint
        self._retry = retry
        self._reporter = reporter
        self._turn = count(random.randrange(1 << 16))  # noqa: S311 - spreads gateways over proxies
        # One for each set of proxies, while in use: requests that hang at one broker must not take the others' turns.
        self._gates: WeakValueDictionary[tuple[str, ...], asyncio.Semaphore] = WeakValueDictionary()

    async def send(self, route: ProxyRoute, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        target = route.targets[partition % len(route.targets)] if partition >= 0 else None
        chains: list[list[RequestPart]]
        if partition == DELAYED:
            chains = [[RequestPart((index,), (message,))] for index, message in enumerate(batch)]
        elif target is None or target.queues == 1:
            chains = [self._parts(batch)]
        else:
            chains = by_group(batch)
        if len(chains) == 1 and len(chains[0]) == 1:
            await self._deliver(route, target, chains[0][0].messages)
        else:
            await self._deliver_chains(route, target, chains)

    def _parts(self, batch: Sequence[bytes]) -> list[RequestPart]:
        """The batch, cut where the broker would find a request too large."""
        limit = self.max_request_bytes
        if sum(map(len, batch)) + _OVERHEAD * len(batch) <= limit:
            return [RequestPart(range(len(batch)), batch)] if batch else []
        parts: list[RequestPart] = []
        start = size = 0
        for index, message in enumerate(batch):
            size += len(message) + _OVERHEAD
            if size > limit and index > start:
                parts.append(RequestPart(range(start, index), batch[start:index]))
                start, size = index, len(message) + _OVERHEAD
        parts.append(RequestPart(range(start, len(batch)), batch[start:]))
        return parts

    async def _deliver_chains(self, route: ProxyRoute, target: Target | None, chains: list[list[RequestPart]]) -> None:
        """Chains side by side, each in order and ended by its first failure.

        Once nobody answers or RocketMQ asks for less, requests that have not begun are left for the next time.

        :raises SinkError: one of those, when there are any; its ``stored`` holds what is stored by then.
        """
        stored: set[int] = set()
        errors: list[SinkError] = []
        gate = self._gate(route, target)

        async def run(chain: list[RequestPart]) -> None:
            for part in chain:
                async with gate:
                    if any(map(_for_all, errors)):
                        return
                    try:
                        await self._deliver(route, target, part.messages)
                    except SinkError as error:
                        stored.update(part.indexes[index] for index in error.stored)
                        errors.append(bare(error))
                        return
                stored.update(part.indexes)

        await side_by_side([run(chain) for chain in chains])
        if errors:
            raise _gravest(errors, stored)

    def _gate(self, route: ProxyRoute, target: Target | None) -> asyncio.Semaphore:
        addresses = addresses_of(route, target)
        gate = self._gates.get(addresses)
        if gate is None:
            gate = self._gates[addresses] = asyncio.Semaphore(self._options.single_requests)
        return gate

    async def _deliver(self, route: ProxyRoute, target: Target | None, batch: Sequence[bytes]) -> None:
        """One request, tried up to ``attempts`` times, but once where another try stores another copy.

        :raises SinkError: the last attempt's. Its ``stored`` are indexes of this request.
        """
        request = batch[0] if len(batch) == 1 else b"".join(batch)
        backoff = self._retry()
        turn = next(self._turn)
        hung: set[str] = set()
        for attempt in range(self._options.attempts):
            endpoint = self._choose(route, target, turn + attempt, hung)
            try:
                await endpoint.send(request, route.topic, len(batch))
            except (SinkUnavailable, SinkThrottled) as error:
                if error.reason == "deadline_exceeded":
                    hung.add(endpoint.address)
                last = attempt + 1 == self._options.attempts or error.reason in STORED_ANYWAY
                if last or error.stored or self._nobody_left(route, target, hung):
                    raise
                self._reporter.report(SendRetried(reason=error.reason, cause=str(error), count=len(batch)))
                await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter
            else:
                return

    def _choose(self, route: ProxyRoute, target: Target | None, turn: int, hung: set[str]) -> Endpoint:
        """The next proxy in turn, those that do not answer last. Grouped messages keep to their target's."""
        addresses = addresses_of(route, target)
        if target is not None:
            turn = 0  # all of a partition through one proxy while it answers
        ring = [self._endpoint(addresses[(turn + i) % len(addresses)]) for i in range(len(addresses))]
        return min(ring, key=lambda endpoint: (endpoint.address in hung, endpoint.up is False))

    @staticmethod
    def _nobody_left(route: ProxyRoute, target: Target | None, hung: set[str]) -> bool:
        """Whether every proxy has let a deadline pass: another try would only wait as long again."""
        return hung.issuperset(addresses_of(route, target))


async def side_by_side(chains: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end. When one of them raises, the others are cancelled and waited for before it is raised."""
    tasks = [asyncio.get_running_loop().create_task(chain) for chain in chains]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks  # they hold what they raised, and that holds this frame


def by_group(batch: Sequence[bytes]) -> list[list[RequestPart]]:
    """One-message requests, a list for each group, in order."""
    if len(batch) == 1:
        return [[RequestPart((0,), batch)]]
    parsed = service.SendMessageRequest.FromString(b"".join(batch)).messages
    groups: dict[str, list[RequestPart]] = {}
    for index, (message, raw) in enumerate(zip(parsed, batch, strict=True)):
        groups.setdefault(message.system_properties.message_group, []).append(RequestPart((index,), (raw,)))
    return list(groups.values())


def _for_all(error: SinkError) -> bool:
    """Whether other requests to the same proxies would fare no better now."""
    return isinstance(error, SinkThrottled) or error.reason in {"deadline_exceeded", "unavailable"}


def _gravity(error: SinkError) -> int:
    return next((rank for rank, kind in enumerate(_GRAVITY) if isinstance(error, kind)), len(_GRAVITY))


def _gravest(errors: list[SinkError], stored: Iterable[int]) -> SinkError:
    """The error that decides. ``errors`` is emptied: the frame that raises one must not hold it."""
    gravest = min(errors, key=_gravity)
    errors.clear()
    gravest.stored = frozenset(stored)
    return gravest
