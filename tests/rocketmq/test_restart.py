"""RocketMQ is killed, stopped and frozen under load: the sink says so, and goes on by itself."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import anyio
import anyio.to_thread
import pytest

from spanbridge.core.errors import SinkError
from spanbridge.core.message import Destination
from spanbridge.ports import Link, Sink
from spanbridge.rocketmq import RocketmqOptions, create_sink
from tests.fakes import FakeReporter

from .reading import Reader

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


@pytest.fixture
def anyio_backend() -> object:
    """Once, on the loop that production uses: a JVM's restart costs seconds."""
    return ("asyncio", {"use_uvloop": True})


class Load:
    """Sends numbered messages one after the other, each until it is stored."""

    def __init__(self, sink: Sink[Destination], topic: str, pause: float) -> None:
        self.stored = 0
        self.errors: list[str] = []
        self._sink = sink
        self._topic = topic
        self._pause = pause
        self._head = sink.head(Destination(topic, group="device"))

    async def run(self) -> None:
        while True:
            body = b"%d" % self.stored
            try:
                message = self._head.encode(body, "", (), time.time_ns())
                await self._sink.send(self._topic, self._head.partition, [message])
            except SinkError as error:
                self.errors.append(error.reason)
                await asyncio.sleep(0.05)
            else:
                self.stored += 1
                await asyncio.sleep(self._pause)

    async def grows(self, by: int = 10, timeout: float = 40.0) -> None:
        target = self.stored + by
        with anyio.fail_after(timeout):
            while self.stored < target:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("protocol", ["grpc", "remoting"])
async def test_kill_and_freeze(rocketmq_broker: Any, protocol: Literal["grpc", "remoting"]) -> None:
    topic = rocketmq_broker.create_topic(None, "FIFO", queues=1)
    group = rocketmq_broker.create_group()
    recorder = FakeReporter()
    options = RocketmqOptions(
        endpoints=rocketmq_broker.endpoints if protocol == "grpc" else rocketmq_broker.namesrv,
        protocol=protocol,
        topics=(topic,),
        request_timeout=1.0,
        heartbeat_interval=1.0,
    )
    sink = create_sink(options, recorder)
    await sink.start()
    load = Load(sink, topic, 0.01)
    task = asyncio.get_running_loop().create_task(load.run())
    await load.grows()

    await anyio.to_thread.run_sync(rocketmq_broker.kill)
    with anyio.fail_after(5):
        while sink.status.link is not Link.BACKOFF:
            await asyncio.sleep(0.02)
    assert sink.status.last_error
    await anyio.to_thread.run_sync(rocketmq_broker.start)
    await load.grows()
    assert sink.status.link is Link.UP
    assert set(load.errors) & {"unavailable", "deadline_exceeded"}

    load.errors.clear()
    await anyio.to_thread.run_sync(rocketmq_broker.pause)
    with anyio.fail_after(10):
        while not load.errors:
            await asyncio.sleep(0.02)
    await anyio.to_thread.run_sync(rocketmq_broker.resume)
    await load.grows()
    assert sink.status.link is Link.UP

    with anyio.fail_after(10):
        while not sink.status.detail.get("telemetry_stream", True):
            await asyncio.sleep(0.02)
    await sink.probe()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await sink.close()
    assert {"rocketmq.endpoint.down", "rocketmq.endpoint.up"} <= set(recorder.names())
    messages = await Reader(rocketmq_broker.endpoints, topic, group).read(load.stored, distinct=True)
    numbers = [int(message.body) for message in messages]
    # Each at least once, and the first time in order.
    assert sorted(set(numbers))[: load.stored] == list(range(load.stored))
    firsts = list(dict.fromkeys(numbers))
    assert firsts == sorted(firsts)
