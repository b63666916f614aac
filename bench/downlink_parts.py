"""What a command costs the gateway on its way down, step by step: ``python -m bench.downlink_parts``.

Microseconds of CPU a message, the least of several rounds. Everything is the gateway's own code but the sockets: the
bytes of a receive call are given to the HTTP/2 connection, PUBLISH packets and acknowledgements are made and
discarded, and the answers to them are given to the code that reads them. Prints one JSON object, for commands without
a context, for such with one, and for such with tracing on. Its steps::

    frames   HTTP/2 frames to gRPC messages
    decode   protobuf to deliveries in the consumer's hands
    make     deliveries to publications: context, recipe, properties, spans
    encode   publications to PUBLISH packets
    answer   PUBACKs to outcomes
    arrive   outcomes to acknowledgements, metrics and ended spans
    ack      acknowledgements to a request, and its answer's results
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from bench.payload import Phase, pack
from spanbridge.core.downlinks import Downlink
from spanbridge.core.events import Event
from spanbridge.core.template import DOWN, Template
from spanbridge.downlink.forwarder import Forwarder
from spanbridge.downlink.parking import DownlinkSettings
from spanbridge.downlink.recipe import DownlinkEnds
from spanbridge.mqtt.codec import Answers, Decoder
from spanbridge.mqtt.outbound import OutboundSession
from spanbridge.mqtt.version import Accepted, Version5
from spanbridge.rocketmq import ConsumerOptions, RocketmqOptions, create_consumer
from spanbridge.rocketmq.grpc.http2.call import GrpcCall
from spanbridge.rocketmq.grpc.http2.connection import Http2Connection
from spanbridge.rocketmq.grpc.http2.frames import FrameKind, frame
from spanbridge.rocketmq.grpc.receive import Reception
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.telemetry import DownlinkMetrics, Peer, Tracer
from spanbridge.telemetry.metrics.convention import Convention

TOPIC = "bench-commands"
BROKER = "broker-a"
BATCH = 32
DEVICES = 100
COUNT = 960
ROUNDS = 25
STEPS = ("frames", "decode", "make", "encode", "answer", "arrive", "ack")


class Silent:
    """A reporter for whom nothing is news."""

    def report(self, event: Event) -> None:
        pass


class WallClock:
    """The clock as it is."""

    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(asyncio.sleep)


class Discarded:
    """A span sink that keeps nothing."""

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        pass


class Wire:
    """A transport that discards."""

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


class Held:
    """A publisher that holds what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, Any]] = []

    def publish(self, publications: Any, published: Any) -> None:
        self.given.append((publications, published))


def answer_of(number: int, *, context: bool) -> bytes:
    """One message of a receive call's answer, as RocketMQ's proxy sends it."""
    response = service.ReceiveMessageResponse()
    message = response.message
    message.topic.name = TOPIC
    message.body = pack(1, Phase.LOAD, number, number)
    if context:
        message.user_properties["traceparent"] = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
    system = message.system_properties
    system.keys.append(f"device-{number % DEVICES:05d}")
    system.message_id = f"0100155D4A7C3B0C3A05{number:014X}"
    system.body_digest.type = definition.DigestType.CRC32
    system.body_encoding = definition.Encoding.IDENTITY
    system.message_type = definition.MessageType.NORMAL
    system.born_timestamp.FromNanoseconds(time.time_ns())
    system.store_timestamp.FromNanoseconds(time.time_ns())
    system.born_host = "127.0.0.1"
    system.store_host = "127.0.0.1:10911"
    system.receipt_handle = f"{number} 1796039607123 60000 0 0 broker-a {number % 8} {number} " + "0" * 40
    system.queue_id, system.queue_offset, system.delivery_attempt = number % 8, number, 1
    system.invisible_duration.FromSeconds(60)
    system.body_digest.checksum = f"{zlib.crc32(message.body):X}"
    return bytes(response.SerializeToString())


class Line:
    """One gateway's downlink, driven step by step."""

    def __init__(self, *, traced: bool, context: bool) -> None:
        options = ConsumerOptions(cluster=RocketmqOptions(endpoints="127.0.0.1:1"), group=TOPIC, topic=TOPIC)
        reporter, clock, peer = Silent(), WallClock(), Peer("127.0.0.1", 1)
        self.consumer: Any = create_consumer(options, reporter)
        self.consumer._deliver = self._take
        self.consumer._acks._brokers = self
        self.publisher: Any = Held()
        downlink = Downlink(
            name=TOPIC, topic=TOPIC, group=TOPIC, publish=Template.parse("bench/1/{key}", DOWN), broker="mqtt"
        )
        tracer = Tracer(Discarded() if traced else None)
        self.forwarder = Forwarder(
            downlink, self.consumer, self.publisher, ends=DownlinkEnds(gateway="bench", cluster=peer, broker=peer),
            settings=DownlinkSettings(max_in_flight=1 << 20, max_in_flight_bytes=1 << 40), tracer=tracer,
            metrics=DownlinkMetrics(Convention(), peer, peer), reporter=reporter, clock=clock,
        )  # fmt: skip
        self.outbound: OutboundSession[Any] = OutboundSession(Version5())
        self.outbound.connected(Accepted(False, "", 0), resumed=False, aliases=0)
        nobody: Any = None
        self.decoder = Decoder(nobody, v5=True, limit=1 << 20, answers=True)
        self.connection = Http2Connection("127.0.0.1:1", "http")
        wire: Any = Wire()
        self.connection.connection_made(wire)
        self.connection.data_received(frame(FrameKind.SETTINGS, 0, 0))
        self._answers = [[answer_of(n + m, context=context) for m in range(BATCH)] for n in range(0, COUNT, BATCH)]
        self._taken: list[Any] = []
        self._asked: list[Any] = []

    def _take(self, deliveries: Any) -> None:
        self._taken += deliveries

    async def ask_encoded(self, broker: str, method: str, raw: bytes, response_type: Any, what: str) -> Any:
        """Stand in for the proxy: every acknowledgement is taken."""
        return response_type.FromString(self._answer(self._asked))

    async def round(self) -> dict[str, float]:
        """Microseconds a message of each step."""
        times: dict[str, int] = {}
        answers, count = self._answers, COUNT

        def step(name: str, work: Callable[[], None]) -> None:
            began = time.process_time_ns()
            work()
            times[name] = time.process_time_ns() - began

        read = []
        calls: list[list[bytes]] = []
        for messages in answers:
            got: list[bytes] = []
            calls.append(got)
            call = GrpcCall(got.extend, lambda outcome: None, 1 << 24)
            self.connection.begin(call, b"")
            data = [b"\0" + len(one).to_bytes(4, "big") + one for one in messages]
            read.append(b"".join(frame(FrameKind.DATA, 0, call.stream, one) for one in data))
        step("frames", lambda: [self.connection.data_received(data) for data in read] and None)
        assert all(len(got) == BATCH for got in calls)
        receptions = [Reception(BROKER, self.consumer) for _ in calls]
        step("decode", lambda: [one.arrived(got) for one, got in zip(receptions, calls, strict=True)] and None)
        taken = [self._taken[n : n + BATCH] for n in range(0, count, BATCH)]
        self._taken.clear()
        step("make", lambda: [self.forwarder.deliver(deliveries) for deliveries in taken] and None)
        given, self.publisher.given = self.publisher.given, []

        def encode() -> None:
            for publications, published in given:
                self.outbound.put(publications, published, time.monotonic_ns())
                assert self.outbound.take(time.monotonic_ns())

        step("encode", encode)
        ids = list(self.outbound._unanswered)
        pubacks = [
            b"".join(b"\x40\x02" + number.to_bytes(2, "big") for number in ids[n : n + BATCH])
            for n in range(0, count, BATCH)
        ]
        outcomes: list[tuple[Any, Any]] = []

        def answer() -> None:
            for data in pubacks:
                for packet in self.decoder.feed(data, 0, 0):
                    assert isinstance(packet, Answers)
                    self.outbound.answers(packet.words)
                groups, self.outbound.outcomes._groups = self.outbound.outcomes._groups, {}
                outcomes.extend(groups.items())

        step("answer", answer)

        self.consumer._acks._scheduled = True  # they wait
        step("arrive", lambda: [published(some, error) for (published, error), some in outcomes] and None)
        waiting = list(self.consumer._acks._waiting.pop(BROKER))
        began = time.process_time_ns()
        for n in range(0, count, BATCH):
            self._asked = waiting[n : n + BATCH]
            await self.consumer._acks._try(BROKER, self._asked)
        whole = time.process_time_ns() - began
        began = time.process_time_ns()
        for n in range(0, count, BATCH):  # what stands in for the proxy
            self._answer(waiting[n : n + BATCH])
        times["ack"] = whole - (time.process_time_ns() - began)
        assert not len(self.consumer._held)
        return {name: times[name] / count / 1000 for name in STEPS}

    def _answer(self, batch: list[Any]) -> bytes:
        response = service.AckMessageResponse()
        response.status.code = definition.Code.OK
        for delivery in batch:
            result = response.entries.add(message_id=delivery.key, receipt_handle=delivery.handle)
            result.status.code, result.status.message = definition.Code.OK, "OK"
        return bytes(response.SerializeToString())


async def measure(*, traced: bool, context: bool) -> dict[str, float]:
    """The least of several rounds."""
    line = Line(traced=traced, context=context)
    best = dict.fromkeys(STEPS, float("inf"))
    for _ in range(ROUNDS):
        found = await line.round()
        best = {name: min(best[name], found[name]) for name in STEPS}
    return {name: round(value, 2) for name, value in best.items()} | {"sum": round(sum(best.values()), 2)}


async def everything() -> dict[str, dict[str, float]]:
    """Each way of tracing."""
    return {
        "without_context": await measure(traced=False, context=False),
        "untraced": await measure(traced=False, context=True),
        "traced": await measure(traced=True, context=True),
    }


def main() -> None:
    """Print it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as the gateway does
    print(json.dumps(uvloop.run(everything())))


if __name__ == "__main__":
    main()
