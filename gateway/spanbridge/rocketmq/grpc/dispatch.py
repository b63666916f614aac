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
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from weakref import WeakValueDictionary

from spanbridge.core.errors import SinkThrottled, SinkUnavailable
from spanbridge.core.retry import Backoff
from spanbridge.ports import Reporter
from spanbridge.rocketmq.chains import Chain, RequestPart, cut, deliver_chains, singly
from spanbridge.rocketmq.errors import STORED_ANYWAY, name_others
from spanbridge.rocketmq.events import SendRetried
from spanbridge.rocketmq.grpc.endpoint import Endpoint
from spanbridge.rocketmq.grpc.routes import ProxyRoute, Target, addresses_of
from spanbridge.rocketmq.grpc.stubs import service
from spanbridge.rocketmq.options import RocketmqOptions
from spanbridge.rocketmq.partitions import DELAYED

_OVERHEAD = 256
"""Bytes by which the broker's form of a message may exceed ours: system properties it adds, and framing."""


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
            chains = [[part] for part in singly(batch)]
        elif target is None or target.queues == 1:
            chains = [cut(RequestPart(range(len(batch)), batch), self.max_request_bytes, _OVERHEAD)]
        else:
            chains = by_group(batch)
        if len(chains) == 1 and len(chains[0]) == 1:
            await self._deliver(route, target, chains[0][0])
        else:
            deliver = partial(self._deliver, route, target)
            await deliver_chains([Chain(parts, deliver) for parts in chains], self._gate(route, target))

    def _gate(self, route: ProxyRoute, target: Target | None) -> asyncio.Semaphore:
        addresses = addresses_of(route, target)
        gate = self._gates.get(addresses)
        if gate is None:
            gate = self._gates[addresses] = asyncio.Semaphore(self._options.single_requests)
        return gate

    async def _deliver(self, route: ProxyRoute, target: Target | None, part: RequestPart) -> None:
        """One request, tried up to ``attempts`` times, but once where another try stores another copy.

        :raises SinkError: the last attempt's, which names every proxy that failed. Its ``stored`` are indexes of this
            request.
        """
        batch = part.messages
        request = batch[0] if len(batch) == 1 else b"".join(batch)
        backoff = self._retry()
        turn = next(self._turn)
        hung: set[str] = set()
        failed: dict[str, str] = {}
        for attempt in range(self._options.attempts):
            endpoint = self._choose(route, target, turn + attempt, hung)
            try:
                await endpoint.send(request, route.topic, len(batch))
            except (SinkUnavailable, SinkThrottled) as error:
                if error.reason == "deadline_exceeded":
                    hung.add(endpoint.address)
                last = attempt + 1 == self._options.attempts or error.reason in STORED_ANYWAY
                if last or error.stored or self._nobody_left(route, target, hung):
                    failed.pop(endpoint.address, None)
                    name_others(error, failed.values())
                    raise
                failed[endpoint.address] = str(error)
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


def by_group(batch: Sequence[bytes]) -> list[list[RequestPart]]:
    """One-message requests, a list for each group, in order."""
    if len(batch) == 1:
        return [[RequestPart((0,), batch)]]
    parsed = service.SendMessageRequest.FromString(b"".join(batch)).messages
    groups: dict[str, list[RequestPart]] = {}
    for index, (message, raw) in enumerate(zip(parsed, batch, strict=True)):
        groups.setdefault(message.system_properties.message_group, []).append(RequestPart((index,), (raw,)))
    return list(groups.values())
