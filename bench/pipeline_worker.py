"""``pipeline_worker.py SHAPE MODE MESSAGES``: the pipeline that :mod:`bench.pipeline` measures, in its own process.

A first line on standard input has it encode ``MESSAGES`` packets, a second one take them through the pipeline: it is
answered with microseconds of CPU a message. Everything from the packets' bytes to encoded batches and encoded OTLP
requests is the gateway's own code; broker, RocketMQ and OTLP receiver are replaced by what takes everything at once.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import packets, shapes
from spanbridge.app import convert
from spanbridge.app.clock import SystemClock
from spanbridge.config import load
from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Publish
from spanbridge.mqtt.codec import Decoder, Publishes
from spanbridge.mqtt.session import MqttSession
from spanbridge.rocketmq.grpc.encode import Encoder
from spanbridge.rocketmq.ids import MessageIds
from spanbridge.rocketmq.remoting.encode import RemotingEncoder
from spanbridge.telemetry import MessageMetrics, Tracer
from spanbridge.telemetry.otlp.buffer import SpanBuffer
from spanbridge.telemetry.spans.hop import SCHEMA_URL
from spanbridge.telemetry.spans.wire import RequestFrame
from spanbridge.uplink import Uplink

READ = 64
"""Messages that one read of the socket brings."""
BATCH_SPANS = 2048
BATCH_BYTES = 3 << 20


class Source:
    """Decoder and session of an MQTT source, without its connection."""

    name = "mqtt"

    def __init__(self, *, v5: bool) -> None:
        self.session = MqttSession()
        self.session.connected(session_present=False)
        self.decoder = Decoder(self, v5=v5, limit=1 << 28)
        self.deliver: Any = None
        self.answered = 0

    def feed(self, data: bytes) -> None:
        """One read of the socket."""
        now = time.monotonic_ns()
        batch: list[Delivery[Publish]] = []
        for packet in self.decoder.feed(data, time.time_ns(), now):
            assert type(packet) is Publishes
            fresh, _, _ = self.session.take(packet)
            batch += fresh
        self.deliver(batch)

    def ack(self, deliveries: Sequence[Delivery[Publish]]) -> None:
        """Count the bytes of the acknowledgements."""
        self.answered += len(self.session.ack(deliveries))

    @property
    def unacked(self) -> int:
        """See the port."""
        return self.session.unacked

    @property
    def held(self) -> int:
        """See the port."""
        return self.session.held

    @property
    def held_bytes(self) -> int:
        """See the port."""
        return self.session.held_bytes

    async def run(self, deliver: Any, _: Any) -> None:
        """Hand over what :meth:`feed` brings."""
        self.deliver = deliver


class Sink:
    """Takes every batch at once."""

    def __init__(self, *, remoting: bool) -> None:
        self.encoder = RemotingEncoder(MessageIds()) if remoting else Encoder(MessageIds())
        self.head = self.encoder.head
        self.size = 0

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        """Join the batch, as a request would."""
        self.size += len(b"".join(batch))


class Reporter:
    """Nothing is to go wrong here."""

    def report(self, event: object) -> None:
        """:raises RuntimeError: something did."""
        raise RuntimeError(repr(event))


class Pipeline:
    """The uplink of one shape, between fakes."""

    def __init__(self, shape: shapes.Shape, *, traced: bool) -> None:
        config = _config(shape)
        peers = convert.peers(config)
        self.buffer = SpanBuffer(1 << 30, batch_spans=BATCH_SPANS, batch_bytes=BATCH_BYTES)
        self.frame = RequestFrame({"service.name": "bench"}, "", "spanbridge", "0", SCHEMA_URL)
        self.source = Source(v5=shape.version == "5")
        self.sink = Sink(remoting=config.rocketmq.protocol == "remoting")
        self.uplink = Uplink(
            self.sink,  # type: ignore[arg-type]
            tracer=Tracer(self.buffer if traced else None),
            metrics=MessageMetrics(*peers),
            reporter=Reporter(),
            clock=SystemClock(),
            settings=convert.uplink_settings(config),
            cluster=peers[1],
        )
        self.uplink.attach(self.source, config.build_routes(), peers[0])  # type: ignore[arg-type]
        made = packets.template(shape, 1, shape.carrier, 100)
        self.packets = packets.Packets(made, 0, 1)
        self.exported = 0

    def reads(self, messages: int) -> Iterator[bytes]:
        """What the socket brings."""
        for at in range(0, messages, READ):
            yield self.packets.encode(READ, 1, at, {})

    async def feed(self, reads: Sequence[bytes]) -> float:
        """Take all of them through the pipeline; return seconds of CPU."""
        started = time.process_time()
        for data in reads:
            self.source.feed(data)
            while self.uplink.in_flight:  # noqa: ASYNC110 - the sender's tasks run, and nothing is waited for
                await asyncio.sleep(0)
            while self.buffer.batch_is_full:
                self.exported += len(self.frame.wrap(self.buffer.take()[0]))
        return time.process_time() - started

    async def serve(self, messages: int) -> None:
        """Answer each line with a round."""
        running = asyncio.create_task(self.uplink.run())  # it goes on until it is told to stop
        while self.source.deliver is None:  # noqa: ASYNC110 - its task starts, and nothing is waited for
            await asyncio.sleep(0)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        while sys.stdin.readline():
            reads = list(self.reads(messages))
            print("ready", flush=True)
            sys.stdin.readline()
            seconds = await self.feed(reads)
            print(seconds / (len(reads) * READ) * 1e6, flush=True)
            if self.source.answered % 4 or not self.source.answered:
                raise RuntimeError("messages were not acknowledged")
        running.cancel()


def _config(shape: shapes.Shape) -> Any:
    text = shape.config(shapes.Setting(mqtt="127.0.0.1:1883", rocketmq="127.0.0.1:8081", run_id=1))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "gateway.toml"
        path.write_text(text)
        return load(path, shape.environment)


def main() -> None:
    """Run in uvloop, as the gateway does."""
    name, mode, messages = sys.argv[1:]
    import uvloop  # noqa: PLC0415

    pipeline = Pipeline(shapes.shape(name), traced=mode == "traced")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(pipeline.serve(int(messages)))


if __name__ == "__main__":
    main()
