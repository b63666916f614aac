"""What tests of a consumer share: a source that runs, and what it handed over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.errors import SinkThrottled
from spanbridge.core.message import Destination, Message
from spanbridge.ports import QueueSource
from spanbridge.rocketmq import ConsumerOptions, RocketmqOptions, create_consumer
from spanbridge.rocketmq.grpc.producer import GrpcProducer
from tests.fakes import FakeReporter


class Taker:
    """Holds what a source delivers, until the test says what becomes of it."""

    def __init__(self, source: QueueSource[Message], recorder: FakeReporter) -> None:
        self.source = source
        self.recorder = recorder
        self.deliveries: list[Delivery[Message]] = []
        self.received: list[list[Message]] = []
        self.acked: list[tuple[str, int, str | None]] = []
        self.automatic = False
        """Whether everything is acknowledged at once."""

    def deliver(self, deliveries: list[Delivery[Message]]) -> None:
        self.deliveries += deliveries
        if self.automatic:
            self.source.ack(deliveries)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.message.body for delivery in self.deliveries]

    def named(self, *bodies: bytes) -> list[Delivery[Message]]:
        """The last deliveries of these bodies."""
        last = {delivery.message.body: delivery for delivery in self.deliveries}
        return [last[body] for body in bodies]

    async def until(self, condition: Callable[[], object], timeout: float = 120.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.01)

    async def fails_with(self, text: str) -> None:
        """Wait until an operator is told this."""
        await self.until(lambda: text in (self.source.status.last_error or ""))

    async def have(self, count: int) -> list[Delivery[Message]]:
        """Wait for this many deliveries in all."""
        await self.until(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def nothing_held(self) -> None:
        await self.until(lambda: not self.source.held)


@asynccontextmanager
async def consuming(endpoints: str, group: str, topic: str, **options: Any) -> AsyncIterator[Taker]:
    """A running consumer. Options of the connection are told by their names."""
    recorder = FakeReporter()
    connection = {name: options.pop(name) for name in list(options) if name in RocketmqOptions.__dataclass_fields__
                  and name not in ConsumerOptions.__dataclass_fields__}  # fmt: skip
    wanted = ConsumerOptions(
        cluster=RocketmqOptions(endpoints=endpoints, **connection), group=group, topic=topic, **options
    )
    takers: list[Taker] = []

    def received(messages: Sequence[Message], began_ns: int, ended_ns: int) -> None:
        assert 0 < began_ns <= ended_ns
        takers[0].received.append(list(messages))

    def acked(topic: str, count: int, began_ns: int, ended_ns: int, error: str | None) -> None:
        assert 0 < began_ns <= ended_ns
        takers[0].acked.append((topic, count, error))

    source = create_consumer(wanted, recorder, received=received, acked=acked)
    taker = Taker(source, recorder)
    takers.append(taker)
    task = asyncio.get_running_loop().create_task(source.run(taker.deliver, lambda: None))
    try:
        yield taker
    finally:
        await source.close()
        await task


@asynccontextmanager
async def sending(endpoints: str, topic: str, **options: Any) -> AsyncIterator[Callable[..., Any]]:
    """``await send(*bodies, tag=..., group=..., ...)``: the rest are fields of a ``Destination``."""
    sink = GrpcProducer(RocketmqOptions(endpoints=endpoints, request_timeout=20.0, **options), FakeReporter())
    await sink.start()

    async def send(*bodies: bytes, **destination: Any) -> None:
        head = sink.head(Destination(topic, **destination))
        batch = [head.encode(body, "", (), time.time_ns()) for body in bodies]
        async with asyncio.timeout(60):
            while batch:
                try:
                    await sink.send(topic, head.partition, batch)
                except SinkThrottled as busy:
                    batch = [one for number, one in enumerate(batch) if number not in busy.stored]
                    await asyncio.sleep(0.1)
                else:
                    batch = []

    try:
        yield send
    finally:
        await sink.close()
