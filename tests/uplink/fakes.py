"""Fakes of the ports, for the pipeline's own decisions. Behaviour at the rim is tested on real brokers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Destination, Publish
from spanbridge.core.routes import Route, TopicFilter
from spanbridge.core.template import Template
from spanbridge.ports import Deliver, Link, PeerStatus, Released
from tests.fakes import StandingTime


class Stored(NamedTuple):
    """A message as RocketMQ would have it."""

    topic: str
    body: bytes
    properties: dict[str, str]
    group: str | None


class FakeClock(StandingTime):
    """Time that stands still but for sleeps, which pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += int(seconds * 1e9)
        await asyncio.sleep(0)


class FakeDelivery(Delivery[Publish]):
    """A delivery with the number that the test knows it by."""

    __slots__ = ("__weakref__", "answered", "packet_id")

    def __init__(self, message: Publish, source: FakeSource, *, packet_id: int, size: int, now: int) -> None:
        expires = None if message.expiry is None else now + message.expiry * 1_000_000_000
        super().__init__(message, source, size, now, expires)
        self.packet_id = packet_id
        self.answered = False


class FakeSource:
    """A source that the test feeds. ``acked`` are the acknowledgements that left, in receive order as MQTT wants."""

    def __init__(self, name: str = "mqtt") -> None:
        self.name = name
        self.acked: list[int] = []
        self.nacked: list[tuple[int, str]] = []
        self.reading = True
        self.closed = asyncio.Event()
        self.stopped = False
        self.gone: list[Delivery[Publish]] = []
        self.queue: deque[FakeDelivery] = deque()
        self.loose: set[FakeDelivery] = set()
        self.released: Released | None = None
        self._deliver: Deliver[Publish] | None = None

    @property
    def running(self) -> bool:
        return self._deliver is not None

    @property
    def status(self) -> PeerStatus:
        return PeerStatus(self.name, Link.UP, 0, None, {})

    @property
    def unacked(self) -> int:
        return sum(not one.answered for one in [*self.queue, *self.loose])

    @property
    def held(self) -> int:
        return len(self.queue) + len(self.loose)

    @property
    def held_bytes(self) -> int:
        return sum(one.size for one in [*self.queue, *self.loose])

    def oldest_ns(self) -> int | None:
        return min((one.arrived_ns for one in [*self.queue, *self.loose] if not one.answered), default=None)

    def unrepeatable(self) -> list[Delivery[Publish]]:
        return list(self.loose)

    async def run(self, deliver: Deliver[Publish], released: Released) -> None:
        self._deliver, self.released = deliver, released
        await self.closed.wait()

    def deliver(self, deliveries: list[FakeDelivery]) -> None:
        assert self._deliver is not None
        for one in deliveries:
            if one.message.qos:
                self.queue.append(one)
            else:
                self.loose.add(one)
        self._deliver(list(deliveries))

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        for one in deliveries:
            assert isinstance(one, FakeDelivery)
            assert not one.answered, "answered twice"
            one.answered = True
            self.loose.discard(one)
        while self.queue and self.queue[0].answered:
            self.acked.append(self.queue.popleft().packet_id)

    def nack(self, deliveries: Sequence[Delivery[Publish]], cause: str) -> None:
        for one in deliveries:
            assert isinstance(one, FakeDelivery)
            if one.answered:
                continue
            one.answered = True
            self.loose.discard(one)
            with contextlib.suppress(ValueError):
                self.queue.remove(one)
            self.nacked.append((one.packet_id, cause))

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    async def stop_intake(self) -> None:
        self.stopped = True

    async def close(self) -> None:
        self.closed.set()


class FakeHead:
    """What messages of one destination share."""

    def __init__(self, sink: FakeSink, destination: Destination) -> None:
        self._sink = sink
        self._destination = destination
        self.partition = -1 if destination.group is None else len(destination.group) % 4

    def encode(self, body: bytes, traceparent: str, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        del born_ns
        carried = [("traceparent", traceparent)] if traceparent else []
        return self._sink.encode(self._destination, body, [*carried, *properties])


class FakeSink:
    """A sink whose answers the test scripts: ``respond`` gets each batch and may raise a SinkError."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.requests: list[list[Stored]] = []
        self.respond: Callable[[list[Stored]], None] = lambda batch: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.heads: list[Destination] = []
        self._encoded: dict[bytes, Stored] = {}

    @property
    def status(self) -> PeerStatus:
        return PeerStatus("rocketmq", Link.UP, 0, None, {})

    async def start(self) -> None: ...

    async def probe(self) -> None: ...

    async def close(self) -> None: ...

    def head(self, destination: Destination) -> FakeHead:
        self.heads.append(destination)
        if " " in destination.topic:
            raise SinkRejected(f"topic {destination.topic!r} has a space", reason="illegal_topic")
        return FakeHead(self, destination)

    def encode(self, destination: Destination, body: bytes, properties: Sequence[tuple[str, str]]) -> bytes:
        if len(body) > 1000:
            raise SinkRejected("the body is too large", reason="too_large")
        key = b"%d" % len(self._encoded)
        everything = dict([*destination.properties, *properties])
        self._encoded[key] = Stored(destination.topic, body, everything, destination.group)
        return key

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        del partition
        messages = [self._encoded[key] for key in batch]
        assert {message.topic for message in messages} == {topic}
        self.requests.append(messages)
        await self.gate.wait()
        await asyncio.sleep(0)
        self.respond(messages)
        self.stored += messages


class FakeMetrics:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def consumed(self, filter_: str, count: int) -> None:
        self.counts["consumed", filter_] += count

    def requested(self, topic: str, count: int, seconds: float, error: str | None = None) -> None:
        assert seconds >= 0
        self.counts["sent", topic, error or ""] += count
        self.counts["operations", topic, error or ""] += 1
        self.seconds["operation"].append(seconds)

    def dropped(self, filter_: str, reason: str, count: int = 1) -> None:
        self.counts["dropped", filter_, reason] += count

    def rejected(self, filter_: str, reason: str, topic: str, count: int = 1) -> None:
        self.counts["rejected", filter_, reason, topic] += count

    def context(self, outcome: str, count: int) -> None:
        self.counts["context", outcome] += count

    def process_duration(self, filter_: str, seconds: float, count: int = 1, error: str | None = None) -> None:
        assert seconds >= 0
        self.seconds["process"].append(seconds)
        self.counts["processed", filter_, error or ""] += count

    def batch(self, topic: str, size: int, seconds: float | None = None) -> None:
        assert seconds is None or seconds >= 0
        self.seconds["batch"].append(seconds or 0)
        self.counts["batch", topic] += size


def route(filter_: str, topic: str = "out", **settings: Any) -> Route:
    return Route(
        name=settings.pop("name", filter_), filter=TopicFilter.parse(filter_), topic=Template.parse(topic), **settings
    )
