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
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import blake2b
from itertools import count
from weakref import WeakValueDictionary

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable
from spanbridge.core.retry import Backoff
from spanbridge.ports import Reporter
from spanbridge.rocketmq.errors import STORED_ANYWAY
from spanbridge.rocketmq.events import SendRetried
from spanbridge.rocketmq.grpc.encode import DELAYED
from spanbridge.rocketmq.grpc.endpoint import Endpoint
from spanbridge.rocketmq.grpc.routes import Target, TopicRoute
from spanbridge.rocketmq.grpc.stubs import service
from spanbridge.rocketmq.options import RocketmqOptions

_STORED_KEPT = 65_536
_OVERHEAD = 256
"""Bytes by which the broker's form of a message may exceed ours: system properties it adds, and framing."""

# The error that decides what happens to a batch, when several requests of it failed: what an operator must mend comes
# first, and content is blamed last, since blame makes the caller take the batch apart.
_GRAVITY: tuple[type[SinkError], ...] = (SinkMisconfigured, SinkUnavailable, SinkThrottled, SinkRejected)


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
        # Digests of messages stored by a send that failed as a whole. The caller brings them again; they are not sent
        # again. Some it never brings (they expire), and those must not keep their bytes here.
        self._stored: set[bytes] = set()

    async def send(self, route: TopicRoute, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        if not self._stored:
            await self._send(route, partition, batch)
            return
        rest, left_out = self._leave_out_stored(batch)
        try:
            await self._send(route, partition, rest)
        except BaseException:
            self._remember(left_out)  # they will be brought once more
            raise

    async def _send(self, route: TopicRoute, partition: int, batch: Sequence[bytes]) -> None:
        target = route.targets[partition % len(route.targets)] if partition >= 0 else None
        chains: list[list[Sequence[bytes]]]
        if partition == DELAYED:
            chains = [[(message,)] for message in batch]
        elif target is None or target.queues == 1:
            chains = [self._pieces(batch)]
        else:
            chains = by_group(batch)
        if len(chains) == 1 and len(chains[0]) == 1:
            await self._deliver(route, target, chains[0][0])
        elif chains:
            await self._deliver_chains(route, target, chains)

    def _leave_out_stored(self, batch: Sequence[bytes]) -> tuple[Sequence[bytes], set[bytes]]:
        digests = _digests(batch)
        rest = [message for message, digest in zip(batch, digests, strict=True) if digest not in self._stored]
        left_out = self._stored.intersection(digests)
        self._stored -= left_out
        return rest, left_out

    def _remember(self, digests: Collection[bytes]) -> None:
        if len(self._stored) + len(digests) > _STORED_KEPT:
            self._stored.clear()  # they may be stored twice then, never lost
        self._stored.update(digests)

    def _pieces(self, batch: Sequence[bytes]) -> list[Sequence[bytes]]:
        """The batch, cut where the broker would find a request too large."""
        limit = self.max_request_bytes
        if sum(map(len, batch)) + _OVERHEAD * len(batch) <= limit:
            return [batch] if batch else []
        pieces: list[Sequence[bytes]] = []
        start = size = 0
        for index, message in enumerate(batch):
            size += len(message) + _OVERHEAD
            if size > limit and index > start:
                pieces.append(batch[start:index])
                start, size = index, len(message) + _OVERHEAD
        pieces.append(batch[start:])
        return pieces

    async def _deliver_chains(
        self, route: TopicRoute, target: Target | None, chains: list[list[Sequence[bytes]]]
    ) -> None:
        """Chains side by side, each in order and ended by its first failure.

        Once nobody answers or RocketMQ asks for less, requests that have not begun are left for the next time.

        :raises SinkError: one of those, when there are any; what is stored by then will be left out next time.
        """
        stored: list[bytes] = []
        errors: list[SinkError] = []
        gate = self._gate(route, target)

        async def run(chain: list[Sequence[bytes]]) -> None:
            for request in chain:
                async with gate:
                    if any(map(_for_all, errors)):
                        return
                    try:
                        await self._deliver(route, target, request)
                    except SinkError as error:
                        errors.append(error)
                        return
                stored.extend(request)

        await asyncio.gather(*map(run, chains))
        if errors:
            self._remember(_digests(stored))
            raise min(errors, key=_gravity)

    def _gate(self, route: TopicRoute, target: Target | None) -> asyncio.Semaphore:
        addresses = addresses_of(route, target)
        gate = self._gates.get(addresses)
        if gate is None:
            gate = self._gates[addresses] = asyncio.Semaphore(self._options.single_requests)
        return gate

    async def _deliver(self, route: TopicRoute, target: Target | None, batch: Sequence[bytes]) -> None:
        """One request, tried up to ``attempts`` times, but once where each try stores another copy.

        :raises SinkError: the last attempt's.
        """
        request = batch[0] if len(batch) == 1 else b"".join(batch)
        backoff = self._retry()
        turn = next(self._turn)
        hung: set[str] = set()
        for attempt in range(self._options.attempts):
            endpoint = self._choose(route, target, turn + attempt, hung)
            try:
                await endpoint.send(request, route.topic)
            except (SinkUnavailable, SinkThrottled) as error:
                if error.reason == "deadline_exceeded":
                    hung.add(endpoint.address)
                last = attempt + 1 == self._options.attempts or error.reason in STORED_ANYWAY
                if last or self._nobody_left(route, target, hung):
                    raise
                self._reporter.report(SendRetried(reason=error.reason, cause=str(error), count=len(batch)))
                await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter
            else:
                return

    def _choose(self, route: TopicRoute, target: Target | None, turn: int, hung: set[str]) -> Endpoint:
        """The next proxy in turn, those that do not answer last. Grouped messages keep to their target's."""
        addresses = addresses_of(route, target)
        if target is not None:
            turn = 0  # all of a partition through one proxy while it answers
        ring = [self._endpoint(addresses[(turn + i) % len(addresses)]) for i in range(len(addresses))]
        return min(ring, key=lambda endpoint: (endpoint.address in hung, endpoint.up is False))

    @staticmethod
    def _nobody_left(route: TopicRoute, target: Target | None, hung: set[str]) -> bool:
        """Whether every proxy has let a deadline pass: another try would only wait as long again."""
        return hung.issuperset(addresses_of(route, target))


def addresses_of(route: TopicRoute, target: Target | None = None) -> tuple[str, ...]:
    """The proxies that lead to a target, or to any queue of the route."""
    if target is not None:
        return target.addresses
    if len(route.targets) == 1:
        return route.targets[0].addresses
    return tuple(dict.fromkeys(address for target in route.targets for address in target.addresses))


def by_group(batch: Sequence[bytes]) -> list[list[Sequence[bytes]]]:
    """One-message requests, a list for each group, in order."""
    if len(batch) == 1:
        return [[batch]]
    parsed = service.SendMessageRequest.FromString(b"".join(batch)).messages
    groups: dict[str, list[Sequence[bytes]]] = {}
    for message, raw in zip(parsed, batch, strict=True):
        groups.setdefault(message.system_properties.message_group, []).append((raw,))
    return list(groups.values())


def _digests(messages: Iterable[bytes]) -> list[bytes]:
    return [blake2b(message, digest_size=16).digest() for message in messages]


def _for_all(error: SinkError) -> bool:
    """Whether other requests to the same proxies would fare no better now."""
    return isinstance(error, SinkThrottled) or error.reason in {"deadline_exceeded", "unavailable"}


def _gravity(error: SinkError) -> int:
    return next((rank for rank, kind in enumerate(_GRAVITY) if isinstance(error, kind)), len(_GRAVITY))
