"""What one message costs on its way into RocketMQ, and where the time goes.

    python bench/rocketmq_sink.py --endpoints 127.0.0.1:8081 [--topic T | starts a devstack without --endpoints]

Prints one JSON object. ``encode_us``: one message through ``Head.encode``, against building the protobuf object and
serialising it. ``send``: CPU time of this process and rate for whole batches, for the sink and for the plain way
(stubs, one Message object each, grpc.aio). ``grpc_aio_us_per_request``: the same call with one tiny message, which is
what gRPC itself takes. Everything is measured in one run, one after the other, repeated, and the median taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from grpc import aio

from spanbridge.core.events import Event
from spanbridge.core.message import Destination
from spanbridge.ports import Sink
from spanbridge.rocketmq import RocketmqOptions, create_sink
from spanbridge.rocketmq.grpc.stubs import SERVICE, service

BODY = b"x" * 128
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROPERTIES = [("mqtt.user.site", "plant-7")]
FIXED = (("mqtt.topic", "plant/7/press/3/temperature"), ("mqtt.qos", "1"), ("spanbridge.path", "gw-1"))


class Silent:
    """A reporter for whom nothing is news."""

    def report(self, event: Event) -> None:
        pass


def plain_message(topic: str, sequence: int, born_ns: int) -> Any:
    """The same message through the stubs, as any client builds it."""
    message = service.definition__pb2.Message()
    message.topic.name = topic
    message.user_properties.update(FIXED)
    message.user_properties.update([("traceparent", PARENT), *PROPERTIES])
    system = message.system_properties
    system.tag = "temperature"
    system.message_id = f"01020304050607{sequence:020X}"
    system.body_encoding = 1
    system.message_type = 1
    system.born_timestamp.FromNanoseconds(born_ns)
    message.body = BODY
    return message


def cost(function: Callable[[int], object], count: int = 20_000, rounds: int = 5) -> float:
    """Median CPU microseconds a call."""
    samples = []
    for _ in range(rounds):
        started = time.process_time()
        for number in range(count):
            function(number)
        samples.append((time.process_time() - started) / count * 1e6)
    return round(statistics.median(samples), 2)


def encoding(sink: Sink[Destination], topic: str) -> dict[str, float]:
    """Encoding alone, with a new time for every 32nd message, as one socket read brings them."""
    head = sink.head(Destination(topic, tag="temperature", properties=FIXED))
    now = time.time_ns()
    return {
        "sink": cost(lambda n: head.encode(BODY, PARENT, PROPERTIES, now + (n >> 5) * 1_000_000)),
        "sink_without_properties": cost(lambda n: head.encode(BODY, PARENT, (), now + (n >> 5) * 1_000_000)),
        "stubs": cost(lambda n: plain_message(topic, n, now).SerializeToString(), 5_000),
    }


async def rate(send: Callable[[], Awaitable[object]], batch: int, in_flight: int, seconds: float) -> dict[str, float]:
    """Messages per second and CPU microseconds of this process for each."""
    sent = 0
    end = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal sent
        while time.perf_counter() < end:
            await send()
            sent += batch

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    wall, used = time.perf_counter() - started, time.process_time() - cpu
    return {"msgs_per_s": round(sent / wall), "cpu_us_per_msg": round(used / sent * 1e6, 2)}


async def median_rate(
    send: Callable[[], Awaitable[object]], batch: int, in_flight: int, arguments: argparse.Namespace
) -> dict[str, float]:
    """The median of several rounds by CPU."""
    rounds = [await rate(send, batch, in_flight, arguments.seconds) for _ in range(arguments.rounds)]
    return sorted(rounds, key=lambda result: result["cpu_us_per_msg"])[len(rounds) // 2]


async def measure(
    endpoints: str, topic: str, ordered: tuple[str, str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Everything, in one run."""
    sink: Any = create_sink(RocketmqOptions(endpoints=endpoints, topics=(topic,)), Silent())
    await sink.start()
    plain_head = sink.head(Destination(topic, tag="temperature", properties=FIXED))

    def encoded(count: int, head: Any = plain_head) -> list[bytes]:
        now = time.time_ns()
        return [head.encode(BODY, PARENT, PROPERTIES, now) for _ in range(count)]

    result: dict[str, Any] = {"encode_us": encoding(sink, topic), "send": {}}
    channel = aio.insecure_channel(endpoints, options=[("grpc.enable_http_proxy", 0)])
    stub = channel.unary_unary(
        SERVICE + "SendMessage",
        request_serializer=service.SendMessageRequest.SerializeToString,
        response_deserializer=service.SendMessageResponse.FromString,
    )
    headers = sink._cluster._headers.metadata()  # the same metadata for both ways

    async def plain(count: int) -> None:
        now = time.time_ns()
        request = service.SendMessageRequest(messages=[plain_message(topic, n, now) for n in range(count)])
        response = await stub(request, timeout=10, metadata=headers)
        assert response.status.code == 20000, response.status

    for batch in (1, 32, 128):
        in_flight = 32 if batch == 1 else 4
        result["send"][f"sink_{batch}"] = await median_rate(
            lambda batch=batch: sink.send(topic, -1, encoded(batch)), batch, in_flight, arguments
        )
        result["send"][f"stubs_{batch}"] = await median_rate(
            lambda batch=batch: plain(batch), batch, in_flight, arguments
        )
    for name, fifo in zip(("ordered_one_queue_128", "ordered_many_queues_128"), ordered, strict=True):
        heads = [sink.head(Destination(fifo, tag="t", group=f"device/{n}", properties=FIXED)) for n in range(100)]
        batch = [message for head in (heads + heads)[:128] for message in encoded(1, head)]
        result["send"][name] = await median_rate(
            lambda fifo=fifo, batch=batch: sink.send(fifo, 0, batch), 128, 1, arguments
        )
    tiny = [sink.head(Destination(topic)).encode(b"x", "", (), time.time_ns())]
    one = await median_rate(lambda: sink.send(topic, -1, tiny), 1, 32, arguments)
    result["grpc_aio_us_per_request"] = one["cpu_us_per_msg"]
    await channel.close()
    await sink.close()
    return result


def main() -> None:
    """Parse arguments, start a devstack if need be, print."""
    parser = argparse.ArgumentParser(description="Cost of a message into RocketMQ")
    parser.add_argument("--endpoints", help="an existing proxy; with --topic and two FIFO topics")
    parser.add_argument("--topics", nargs=3, metavar=("NORMAL", "FIFO_ONE_QUEUE", "FIFO_MANY_QUEUES"))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.endpoints and arguments.topics:
        normal, one, many = arguments.topics
        result = uvloop.run(measure(arguments.endpoints, normal, (one, many), arguments))
    else:
        from spanbridge.devstack import Devstack  # noqa: PLC0415 - not needed with --endpoints

        with Devstack.up(mqtt_v5=False, mqtt_v311=False, full_speed=True) as stack:
            create = stack.rocketmq.create_topic
            normal, one, many = create(), create(None, "FIFO", queues=1), create(None, "FIFO", queues=8)
            result = uvloop.run(measure(stack.rocketmq.endpoints, normal, (one, many), arguments))
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
