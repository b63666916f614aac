"""Sends the commands of the benchmark's downlink into RocketMQ, with the gateway's own producer.

A process of its own, driven by lines on standard input::

    probe            send one message of the probe phase
    limit N          send load messages until N of them have been sent in all
    pace RATE COUNT  send COUNT messages at RATE a second, at random intervals; then print ``paced``
    waited           print for how many seconds in all there was nothing to send
    published        print how many messages RocketMQ has stored
    stop             wait for what is under way and print the result as one JSON line

Messages are numbered in the order in which they are encoded. Each has its device's name as its key, and a sampled
trace context of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time

from bench.device import device_name
from bench.loadgen import Progress, abort, say
from bench.payload import Phase, pack
from spanbridge.core.errors import SinkError
from spanbridge.core.events import Event
from spanbridge.core.message import Destination
from spanbridge.rocketmq import RocketmqOptions, create_sink

CHUNK = 128
"""Messages in one request."""
AT_ONCE = 2
"""Requests under way at once."""
POOL = 32_749
"""Contexts that are made ahead: they repeat after those."""


class Silent:
    """A reporter for whom nothing is news: a failed request ends the run."""

    def report(self, event: Event) -> None:
        pass


class Commander:
    """Reads commands and sends."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._progress = Progress()
        self._stored = 0
        self._next = 0
        self._more = asyncio.Event()
        self._paced: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._contexts = [f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01" for _ in range(POOL)]
        connection = RocketmqOptions(endpoints=options.endpoints, topics=(options.topic,), ordered_partitions=1)
        self._sink = create_sink(connection, Silent())
        names = [device_name(number) for number in range(options.devices)]
        self._heads = [
            self._sink.head(Destination(options.topic, keys=(name,), group=name if options.ordered else None))
            for name in names
        ]

    async def run(self) -> None:
        """Connect, obey, report."""
        loop = asyncio.get_running_loop()
        await self._sink.start()
        # Order is kept within one request at a time only.
        workers = [loop.create_task(self._load()) for _ in range(1 if self._options.ordered else AT_ONCE)]
        say("ready")
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            words = line.split()
            if words[0] == b"stop":
                break
            await self._obey(words)
        self._stopping = True
        self._more.set()
        await asyncio.gather(*workers, *self._paced)
        await self._sink.close()
        say(json.dumps({"published": self._stored}))

    async def _obey(self, words: list[bytes]) -> None:
        progress = self._progress
        if words[0] == b"limit":
            progress.limit = int(words[1])
            self._more.set()
        elif words[0] == b"probe":
            await self._send(1, Phase.PROBE)
        elif words[0] == b"waited":
            say(str(progress.waited_now()))
        elif words[0] == b"published":
            say(str(self._stored))
        elif words[0] == b"pace":
            await self._pace(float(words[1]), int(words[2]))
            say("paced")

    async def _load(self) -> None:
        progress = self._progress
        while not self._stopping:
            count = min(CHUNK, progress.limit - progress.load_published)
            if count <= 0:
                progress.starve()
                self._more.clear()
                await self._more.wait()
                continue
            progress.feed()
            progress.load_published += count
            await self._send(count, Phase.LOAD)

    async def _pace(self, rate: float, count: int) -> None:
        for _ in range(count):
            task = asyncio.get_running_loop().create_task(self._send(1, Phase.PACED))
            self._paced.add(task)
            await asyncio.sleep(random.uniform(0.5, 1.5) / rate)
        await asyncio.gather(*self._paced)

    async def _send(self, count: int, phase: Phase) -> None:
        now, first = time.time_ns(), self._next
        self._next += count
        heads, contexts, run = self._heads, self._contexts, self._options.run_id
        batch = [
            heads[seq % len(heads)].encode(pack(run, phase, seq, now), contexts[seq % POOL], (), now)
            for seq in range(first, first + count)
        ]
        try:
            await self._sink.send(self._options.topic, heads[0].partition, batch)
        except SinkError as error:
            abort(f"RocketMQ did not take commands: {error}")
        self._stored += count


def main() -> None:
    """Parse the command line and run until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", required=True, help="HOST:PORT of RocketMQ's gRPC proxy")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--run-id", type=int, required=True)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--ordered", action="store_true", help="a message group for each device")
    options = parser.parse_args()

    async def run() -> None:
        await Commander(options).run()

    try:
        import uvloop  # noqa: PLC0415

        uvloop.run(run())
    except ImportError:
        asyncio.run(run())


if __name__ == "__main__":
    main()
