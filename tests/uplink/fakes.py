"""Fakes of the ports, for the pipeline's own decisions. Behaviour at the rim is tested on real brokers."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from spanbridge.core.errors import SinkRejected
from spanbridge.core.events import Event
from spanbridge.core.message import Address, Publish
from spanbridge.core.routes import Route, TopicFilter
from spanbridge.core.template import Template
from spanbridge.ports import Connected, Deliver, Link, PeerStatus


class Stored(NamedTuple):
    """A message as RocketMQ would have it."""

    topic: str
    body: bytes
    properties: dict[str, str]
    group: str | None


class FakeClock:
    """Time that stands still but for sleeps, which pass at once. ``set`` is what Unix time was set forward by."""

    def __init__(self) -> None:
        self.now = 1_000_000_000
        self.set = 0
        self.slept: list[float] = []

    def now_ns(self) -> int:
        return self.now + self.set

    def monotonic_ns(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += int(seconds * 1e9)
        await asyncio.sleep(0)


class FakeReporter:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.events]


class FakeSource:
    """A source that the test feeds."""

    def __init__(self, name: str = "mqtt") -> None:
        self.name = name
        self.session = 1
        self.epoch = 1
        self.settled: list[int] = []
        self.reading = True
        self.closed = asyncio.Event()
        self.stopped = False
        self.deliver: Deliver | None = None
        self.connected: Connected | None = None

    @property
    def status(self) -> PeerStatus:
        return PeerStatus(self.name, Link.UP, 0, None, {})

    async def run(self, deliver: Deliver, connected: Connected | None = None) -> None:
        self.deliver, self.connected = deliver, connected
        await self.closed.wait()

    def settle(self, publishes: Sequence[Publish]) -> None:
        self.settled += [publish.packet_id for publish in publishes]

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    async def stop_intake(self) -> None:
        self.stopped = True

    async def close(self) -> None:
        self.closed.set()


class FakeSink:
    """A sink whose answers the test scripts: ``respond`` gets each batch and may raise a SinkError."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.requests: list[list[Stored]] = []
        self.respond: Callable[[list[Stored]], None] = lambda batch: None
        self.gate = asyncio.Event()
        self.gate.set()
        self._encoded: dict[bytes, Stored] = {}

    @property
    def status(self) -> PeerStatus:
        return PeerStatus("rocketmq", Link.UP, 0, None, {})

    async def start(self) -> None: ...

    async def probe(self) -> None: ...

    async def close(self) -> None: ...

    def prepare(self, address: Address) -> Address:
        if " " in address.topic:
            raise SinkRejected(f"topic {address.topic!r} has a space", reason="illegal_topic")
        return address

    def encode(self, prepared: Any, body: bytes, properties: Sequence[tuple[str, str]], born_ns: int) -> bytes:
        del born_ns
        if len(body) > 1000:
            raise SinkRejected("the body is too large", reason="too_large")
        key = b"%d" % len(self._encoded)
        everything = dict([*prepared.properties, *properties])
        self._encoded[key] = Stored(prepared.topic, body, everything, prepared.group)
        return key

    def lane(self, prepared: Any) -> int:
        return -1 if prepared.group is None else len(prepared.group) % 4

    async def send(self, topic: str, lane: int, batch: Sequence[bytes]) -> None:
        del lane
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

    def sent(self, topic: str, count: int, error: str | None = None) -> None:
        self.counts["sent", topic, error or ""] += count

    def dropped(self, filter_: str, reason: str, count: int = 1) -> None:
        self.counts["dropped", filter_, reason] += count

    def context(self, outcome: str, count: int) -> None:
        self.counts["context", outcome] += count

    def process_duration(self, filter_: str, seconds: float, count: int = 1, error: str | None = None) -> None:
        assert seconds >= 0
        self.seconds["process"].append(seconds)
        self.counts["processed", filter_, error or ""] += count

    def operation_duration(self, topic: str, seconds: float, error: str | None = None) -> None:
        assert seconds >= 0
        self.seconds["operation"].append(seconds)
        self.counts["operations", topic, error or ""] += 1

    def batch(self, topic: str, size: int, seconds: float | None = None) -> None:
        assert seconds is None or seconds >= 0
        self.seconds["batch"].append(seconds or 0)
        self.counts["batch", topic] += size


def route(filter_: str, topic: str = "out", **settings: Any) -> Route:
    return Route(
        name=settings.pop("name", filter_), filter=TopicFilter.parse(filter_), topic=Template.parse(topic), **settings
    )
