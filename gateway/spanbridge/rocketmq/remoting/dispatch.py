"""Getting encoded messages stored by brokers: which requests to make of a batch, to which queue, how often.

- no group: one request for the batch, to the next queue in turn;
- groups: one request for each queue that a group of the batch belongs to, side by side;
- a delivery timestamp: one request a message, side by side, for brokers take no batches of them.

A broker handles the requests of one connection side by side, so order takes that the next request with messages of a
group is written after the response to the one before. The caller sees to that: it has one batch of a partition under
way, and a group is always in one partition.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import count, pairwise
from typing import Final
from weakref import WeakValueDictionary

from spanbridge.core.errors import SinkMisconfigured, SinkThrottled, SinkUnavailable
from spanbridge.core.retry import Backoff
from spanbridge.ports import Reporter
from spanbridge.rocketmq.chains import Chain, RequestPart, cut, deliver_chains, singly
from spanbridge.rocketmq.errors import NAMES, STORED_ANYWAY, build, name_others
from spanbridge.rocketmq.events import SendRetried, StoredUnsafely
from spanbridge.rocketmq.options import RocketmqOptions
from spanbridge.rocketmq.partitions import DELAYED
from spanbridge.rocketmq.remoting.delays import by_level, is_timed
from spanbridge.rocketmq.remoting.encode import GROUP_HASH, born_of, is_compressed, split
from spanbridge.rocketmq.remoting.endpoint import RemotingEndpoint
from spanbridge.rocketmq.remoting.placing import consistent_hash
from spanbridge.rocketmq.remoting.routes import SendRoute
from spanbridge.rocketmq.remoting.send import FIRST_WITH_TIMERS, WriteQueue, heartbeat, send_batch, send_message

_MAX_REQUEST: Final = 4 * 1024 * 1024
"""Bytes of a batch (``maxMessageSize``). A single message counts by its body alone, and is sent as such."""

_placed = lru_cache(1 << 15)(consistent_hash)


class RemotingDispatcher:
    """Sends batches along routes. ``endpoint`` gives the endpoint for an address, ``known`` the routes as of now."""

    def __init__(
        self,
        options: RocketmqOptions,
        endpoint: Callable[[str], RemotingEndpoint],
        known: Mapping[str, SendRoute],
        client_id: str,
        reporter: Reporter,
    ) -> None:
        self._options = options
        self._endpoint = endpoint
        self._known = known
        self._client_id = client_id
        self._reporter = reporter
        self._turn = count(random.randrange(1 << 16))  # noqa: S311 - spreads gateways over queues
        # One for each set of brokers, while in use: requests that hang at one must not take the others' turns.
        self._gates: WeakValueDictionary[tuple[str, ...], asyncio.Semaphore] = WeakValueDictionary()

    async def send(self, route: SendRoute, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        if partition == DELAYED:
            deliver = partial(self._deliver, route, None)
            chains = [Chain((part,), deliver) for part in singly(batch)]
        elif partition < 0:
            whole = RequestPart(range(len(batch)), batch)
            chains = [Chain(self._requests(whole), partial(self._deliver, route, None))]
        else:
            chains = [
                Chain(self._requests(part), partial(self._deliver, route, queue))
                for queue, part in by_queue(route.queues, batch)
            ]
        if len(chains) == 1 and len(chains[0].parts) == 1:
            await chains[0].deliver(chains[0].parts[0])
        else:
            await deliver_chains(chains, self._gate(route))

    def _requests(self, part: RequestPart) -> list[RequestPart]:
        """What may share a request: a broker takes one flag for all bodies, compressed or not."""
        if not self._options.compress_above:
            return cut(part, _MAX_REQUEST, 0)
        return [request for alike in by_form(part) for request in cut(alike, _MAX_REQUEST, 0)]

    def _gate(self, route: SendRoute) -> asyncio.Semaphore:
        gate = self._gates.get(route.addresses)
        if gate is None:
            gate = self._gates[route.addresses] = asyncio.Semaphore(self._options.single_requests)
        return gate

    async def _deliver(self, route: SendRoute, queue: WriteQueue | None, part: RequestPart) -> None:
        """One request, tried up to ``attempts`` times, but once where another try stores another copy.

        Messages of a group keep to their queue, others go to the next in turn.

        :raises SinkError: the last attempt's, which names every broker that failed.
        """
        backoff = Backoff(self._options.backoff_initial, self._options.backoff_maximum)
        hung: set[str] = set()
        failed: dict[str, str] = {}
        for attempt in range(self._options.attempts):
            target = queue or self._next(route, hung)
            endpoint = self._endpoint(self._address(route, target))
            try:
                await self._request(endpoint, route, target, part)
            except (SinkUnavailable, SinkThrottled) as error:
                if error.reason == "deadline_exceeded":
                    hung.add(target.broker)
                last = attempt + 1 == self._options.attempts or error.reason in STORED_ANYWAY
                if last or (target.broker in hung and (queue is not None or hung.issuperset(route.masters))):
                    failed.pop(endpoint.address, None)
                    name_others(error, failed.values())
                    raise
                failed[endpoint.address] = str(error)
                self._reporter.report(SendRetried(reason=error.reason, cause=str(error), count=len(part.messages)))
                await asyncio.sleep(backoff.next_delay(random.random()))  # noqa: S311 - jitter
            else:
                return

    def _next(self, route: SendRoute, hung: set[str]) -> WriteQueue:
        """The next queue in turn, those of brokers that do not answer last."""
        queues = route.queues
        turn = next(self._turn)
        for offset in range(len(queues)):
            queue = queues[(turn + offset) % len(queues)]
            if queue.broker not in hung and self._endpoint(self._address(route, queue)).up is not False:
                return queue
        return queues[turn % len(queues)]

    def _address(self, route: SendRoute, queue: WriteQueue) -> str:
        """Where the queue's broker is by the newest route: brokers move."""
        newest = self._known.get(route.topic, route)
        return newest.masters.get(queue.broker) or route.masters[queue.broker]

    async def _request(
        self, endpoint: RemotingEndpoint, route: SendRoute, queue: WriteQueue, part: RequestPart
    ) -> None:
        what, messages = f"topic {route.wire_topic!r}", part.messages
        born_ms, compressed = born_of(messages[0]), is_compressed(messages[0])
        if len(messages) == 1:
            body, properties = split(messages[0])
            if is_timed(properties) and not await self._has_timers(endpoint, what):
                properties = by_level(properties, time.time_ns() // 1_000_000)
            call = send_message(route.wire_topic, queue, body, properties, born_ms, compressed=compressed)
            stored = await endpoint.ask(call, what, body_size=len(body))
        else:
            batch = send_batch(route.wire_topic, queue, b"".join(messages), born_ms, compressed=compressed)
            stored = await endpoint.ask(batch, what)
        if stored.less_safe:
            again = self._options.stored_unsafely == "retry"
            event = StoredUnsafely(reason=stored.less_safe, endpoint=endpoint.address, again=again, count=len(messages))
            self._reporter.report(event)
            if again:
                judgement = NAMES[stored.less_safe.upper()]
                raise build(judgement, what, endpoint.address, "stored, but not as safely as configured")

    async def _has_timers(self, endpoint: RemotingEndpoint, what: str) -> bool:
        """Whether the broker knows delivery timestamps. Older ones would deliver at once; they have delay levels.

        :raises SinkMisconfigured: it does not, and delay levels are not to be used.
        """
        if endpoint.version is None:
            endpoint.version = await endpoint.ask(heartbeat(self._client_id), what)
        if endpoint.version >= FIRST_WITH_TIMERS:
            return True
        if self._options.delay_levels:
            return False
        raise SinkMisconfigured(
            f"RocketMQ at {endpoint.address}, {what}: a broker older than 5.0 knows no delivery timestamps. With "
            "delay_levels = true it delivers at the end of the next delay level.",
            reason="timer_disabled",
        )


def by_form(part: RequestPart) -> list[RequestPart]:
    """The part in order, cut where messages with and without compressed bodies meet."""
    forms = [is_compressed(message) for message in part.messages]
    edges = [0, *(at for at in range(1, len(forms)) if forms[at] is not forms[at - 1]), len(forms)]
    return [
        RequestPart(part.indexes[start:end], part.messages[start:end]) for start, end in pairwise(edges) if start < end
    ]


def by_queue(queues: Sequence[WriteQueue], batch: Sequence[bytes]) -> list[tuple[WriteQueue, RequestPart]]:
    """What of a batch of grouped messages goes to which queue, in order. It takes the groups' hashes off."""
    total, size = len(queues), GROUP_HASH.size
    found: dict[int, tuple[list[int], list[bytes]]] = {}
    for index, message in enumerate(batch):
        place = _placed(GROUP_HASH.unpack_from(message)[0], total)
        part = found.get(place)
        if part is None:
            part = found[place] = ([], [])
        part[0].append(index)
        part[1].append(message[size:])
    return [(queues[place], RequestPart(indexes, messages)) for place, (indexes, messages) in found.items()]
