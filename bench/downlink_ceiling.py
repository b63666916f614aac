"""What RocketMQ hands out at most on this machine: ``python -m bench.downlink_ceiling``.

A bridge from RocketMQ to MQTT cannot be faster than a consumer that does nothing with what it gets. This one makes
receive calls side by side on one connection, with the request encoded once, reads handles and acknowledges many at a
time. No MQTT, no properties, no retries. A backlog for each line is stored before; the first lines warm RocketMQ's JVM
up and are for that alone. Prints messages a second, and microseconds of CPU a message of both processes. Then how long
single commands take at 100 a second, from before they are encoded until this consumer has them: no bridge is quicker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from bench.commander import CHUNK, POOL, Silent
from bench.device import device_name
from bench.payload import Phase, pack, unpack
from bench.procstat import cpu_seconds
from bench.shapes import QUEUES
from bench.stats import percentile
from spanbridge.core.errors import SinkError
from spanbridge.core.message import Destination
from spanbridge.devstack import Devstack
from spanbridge.rocketmq import ConsumerOptions, RocketmqOptions, create_consumer, create_sink
from spanbridge.rocketmq.grpc.http2.call import CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.stubs import service

CALLS = (8, 8, 8, 1, 2, 4, 8, 16, 32)
"""Receive calls at once, line by line. The first three warm up."""
PACED_CALLS = (1, 2, 4, 1, 2, 4)
"""The same for single commands."""
RATE = 100.0
"""Of those, a second."""
ACKED = 128
"""Messages in one acknowledging call."""
ACKING = 4
"""Such calls at once."""
PATIENCE = 60.0
"""Seconds for one backlog."""
LARGEST = 1 << 24
TIMEOUT = 30.0
"""Seconds for one call."""


async def fill(endpoints: str, topic: str, count: int) -> int:
    """Store commands as ``bench/commander.py`` does; return how many."""
    sink = create_sink(RocketmqOptions(endpoints=endpoints, topics=(topic,), ordered_partitions=1), Silent())
    await sink.start()
    heads = [sink.head(Destination(topic, keys=(device_name(number),))) for number in range(100)]
    contexts = [f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01" for _ in range(POOL)]
    for first in range(0, count, CHUNK):
        now = time.time_ns()
        batch = [
            heads[seq % 100].encode(pack(1, Phase.LOAD, seq, now), contexts[seq % POOL], (), now)
            for seq in range(first, first + CHUNK)
        ]
        await sink.send(topic, heads[0].partition, batch)
    await sink.close()
    return -(-count // CHUNK) * CHUNK


class Taker:
    """Receives and acknowledges until it has ``total`` messages."""

    def __init__(self, connection: Http2Connection, subscription: Any, calls: Any, broker: str, total: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.acked = 0
        self.latencies: list[float] = []
        """Milliseconds, of the paced commands."""
        self._connection = connection
        self._total = total
        self._received = 0
        self._acking = 0
        self._waiting: list[tuple[str, str]] = []
        self._calls = calls
        self._subscription = subscription
        request = service.ReceiveMessageRequest(
            group=subscription.group, filter_expression=subscription.filter, batch_size=subscription.batch
        )
        request.message_queue.topic.CopyFrom(subscription.topic)
        request.message_queue.broker.name = broker
        request.invisible_duration.FromSeconds(60)
        request.long_polling_timeout.FromSeconds(5)
        self._request = request.SerializeToString()

    def ask(self) -> None:
        """One receive call, and another one when it ends."""
        self._call("ReceiveMessage", self._request, self._arrived, self._answered)

    def _call(self, method: str, request: bytes, arrived: Any, ended: Any) -> None:
        call = GrpcCall(arrived, ended, LARGEST)
        call.outgoing.add(request)
        call.outgoing.whole = True
        self._connection.begin(call, self._calls._block(method, TIMEOUT))

    def _arrived(self, frames: list[bytes]) -> None:
        for frame in frames:
            response = service.ReceiveMessageResponse.FromString(frame)
            if response.HasField("message"):
                now_ns, stamp = time.time_ns(), unpack(response.message.body)
                if stamp.phase == Phase.PACED:
                    self.latencies.append((now_ns - stamp.sent_ns) / 1e6)
                system = response.message.system_properties
                self._waiting.append((system.message_id, system.receipt_handle))
                self._received += 1
        self._acknowledge()

    def _answered(self, end: CallEnd) -> None:
        if self._received < self._total and not self._connection.closed.done():
            self.ask()

    def _acknowledge(self) -> None:
        while self._waiting and self._acking < ACKING and (len(self._waiting) >= ACKED or not self._acking):
            batch, self._waiting = self._waiting[:ACKED], self._waiting[ACKED:]
            request = service.AckMessageRequest(group=self._subscription.group, topic=self._subscription.topic)
            for message_id, handle in batch:
                request.entries.add(message_id=message_id, receipt_handle=handle)
            self._acking += 1

            def ended(end: CallEnd, count: int = len(batch)) -> None:
                self._acking -= 1
                self.acked += count
                if self.acked >= self._total and not self.done.done():
                    self.done.set_result(None)
                self._acknowledge()

            self._call("AckMessage", request.SerializeToString(), lambda frames: None, ended)


@contextlib.asynccontextmanager
async def taking(stack: Devstack, topic: str, total: int) -> AsyncIterator[Taker]:
    """A taker that RocketMQ knows."""
    endpoints = stack.rocketmq.endpoints
    host, _, port = endpoints.rpartition(":")
    options = ConsumerOptions(cluster=RocketmqOptions(endpoints=endpoints), group=topic, topic=topic)
    consumer: Any = create_consumer(options, Silent())
    consumer.pause()  # it introduces us to the proxy, and receives nothing
    running = asyncio.create_task(consumer.run(lambda deliveries: None, lambda: None))
    origins = (await consumer._cluster.routes.get(topic)).origins
    consumer._brokers.learn(origins)
    endpoint = await consumer._brokers.endpoint(origins[0].broker)
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Http2Connection(endpoints, "http"), host, int(port)
    )
    try:
        yield Taker(connection, consumer._subscription, endpoint.calls, origins[0].broker, total)
    finally:
        connection.close()
        await consumer.close()
        await running


async def drain(stack: Devstack, topic: str, total: int, calls: int) -> str:
    """Take a backlog; return the line."""
    async with taking(stack, topic, total) as taker:
        assert stack.rocketmq.pid is not None
        theirs, ours, began = cpu_seconds(stack.rocketmq.pid), time.process_time(), time.perf_counter()
        for _ in range(calls):
            taker.ask()
        with contextlib.suppress(TimeoutError):  # the line says how many there were
            await asyncio.wait_for(taker.done, PATIENCE)
        seconds = time.perf_counter() - began
        ours, theirs = time.process_time() - ours, cpu_seconds(stack.rocketmq.pid) - theirs
    each = max(1, taker.acked) / 1e6
    return (
        f"{calls:3} calls  {taker.acked:6} messages  {taker.acked / seconds:7,.0f} msg/s  "
        f"RocketMQ {theirs / each:6.1f} µs  consumer {ours / each:5.1f} µs  load {os.getloadavg()[0]:.1f}"
    )


async def pace(stack: Devstack, topic: str, total: int, calls: int) -> str:
    """Send commands one by one while the consumer waits for them; return the line."""
    sink = create_sink(RocketmqOptions(endpoints=stack.rocketmq.endpoints, topics=(topic,)), Silent())
    await sink.start()
    head = sink.head(Destination(topic, keys=(device_name(0),)))

    async def send(number: int) -> None:
        now, context = time.time_ns(), f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
        message = head.encode(pack(1, Phase.PACED, number, now), context, (), now)
        while True:
            with contextlib.suppress(SinkError):  # a cold broker on a busy machine: its time counts
                return await sink.send(topic, head.partition, [message])

    async with taking(stack, topic, total) as taker, asyncio.TaskGroup() as group:
        for _ in range(calls):
            taker.ask()
        for number in range(total):
            group.create_task(send(number))
            await asyncio.sleep(random.uniform(0.5, 1.5) / RATE)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(taker.done, PATIENCE)
    await sink.close()
    found = taker.latencies or [float("nan")]
    return (
        f"{calls:3} calls  {len(taker.latencies):6} messages  p50 {percentile(found, 0.5):6.2f} ms  "
        f"p99 {percentile(found, 0.99):6.1f} ms  load {os.getloadavg()[0]:.1f}"
    )


async def everything(stack: Devstack, count: int, paced: int) -> None:
    """Line by line."""
    for number, calls in enumerate(CALLS):
        topic = f"bench-ceiling-{os.getpid()}-{number}"
        await asyncio.to_thread(stack.rocketmq.create_topic, topic, "NORMAL", queues=QUEUES)
        await asyncio.to_thread(stack.rocketmq.create_group, topic)
        total = await fill(stack.rocketmq.endpoints, topic, count)
        print(await drain(stack, topic, total, calls), flush=True)
    for number, calls in enumerate(PACED_CALLS):
        topic = f"bench-paced-{os.getpid()}-{number}"
        await asyncio.to_thread(stack.rocketmq.create_topic, topic, "NORMAL", queues=QUEUES)
        await asyncio.to_thread(stack.rocketmq.create_group, topic)
        print(await pace(stack, topic, paced, calls), flush=True)


def main() -> None:
    """Start a RocketMQ and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000, help="in each backlog")
    parser.add_argument("--paced", type=int, default=300, help="single commands in each line of theirs")
    options = parser.parse_args()
    with Devstack.up() as stack:
        uvloop.run(everything(stack, options.messages, options.paced))


if __name__ == "__main__":
    main()
