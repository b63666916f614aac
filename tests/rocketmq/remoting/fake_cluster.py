"""A name server and brokers on loopback that answer as a test tells them to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.errors import FrameError
from spanbridge.rocketmq.remoting.frame import VERSION, Frame, FrameDecoder, encode

Answer = Callable[[Frame], Frame | None]
"""Answers a request, or does not (None)."""


@dataclass
class FakeBroker:
    """``asked`` are the requests so far; ``answers`` are used up first, then everything succeeds."""

    name: str
    address: str = ""
    version: int = VERSION
    asked: list[Frame] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    connections: int = 0

    def sends(self) -> list[Frame]:
        """Requests to store messages."""
        wanted = {RequestCode.SEND_BATCH_MESSAGE, RequestCode.SEND_MESSAGE_V2}
        return [frame for frame in self.asked if frame.code in wanted]

    def answer(self, request: Frame) -> Frame | None:
        """Heartbeats are always taken."""
        self.asked.append(request)
        if request.code in {RequestCode.SEND_BATCH_MESSAGE, RequestCode.SEND_MESSAGE_V2} and self.answers:
            return self.answers.pop(0)(request)
        return Frame(code=0, opaque=request.opaque, flag=1, version=self.version)


@dataclass
class FakeCluster:
    """``topics`` holds the number of writable queues of each topic, on every broker that is ``registered``.

    Of those in ``headless`` only a replica is.
    """

    name_server: str
    brokers: list[FakeBroker]
    topics: dict[str, int]
    registered: set[str]
    asked: list[str] = field(default_factory=list)
    headless: set[str] = field(default_factory=set)

    def route(self, request: Frame) -> Frame:
        """``GET_ROUTEINFO_BY_TOPIC``"""
        topic = request.fields["topic"]
        self.asked.append(topic)
        brokers = [one for one in self.brokers if one.name in self.registered]
        queues = 1 if topic == "SELF_TEST_TOPIC" else self.topics.get(topic)
        if not brokers or queues is None:
            return request.response(ResponseCode.TOPIC_NOT_EXIST, remark="No topic route info")
        found = {
            "brokerDatas": [
                {"brokerName": one.name, "brokerAddrs": {"1" if one.name in self.headless else "0": one.address}}
                for one in brokers
            ],
            "queueDatas": [
                {"brokerName": one.name, "perm": 6, "readQueueNums": queues, "writeQueueNums": queues}
                for one in brokers
            ],
        }
        return request.response(ResponseCode.SUCCESS, body=json.dumps(found).encode())


def refuse(code: int, remark: str = "") -> Answer:
    """An answer with that code."""
    return lambda request: request.response(code, remark=remark)


def silence(_: Frame) -> None:
    """No answer."""


@asynccontextmanager
async def fake_cluster(*names: str, **topics: int) -> AsyncIterator[FakeCluster]:
    """A cluster with brokers of these names."""
    cluster = FakeCluster("", [FakeBroker(name) for name in names], topics, set(names))

    async def listen(answer: Answer, broker: FakeBroker | None = None) -> tuple[asyncio.Server, str]:
        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if broker is not None:
                broker.connections += 1
            decoder = FrameDecoder()
            with suppress(ConnectionError, FrameError):  # what is no frame ends a connection, as with a name server
                while data := await reader.read(1 << 16):
                    for frame in decoder.feed(data):
                        if (response := answer(frame)) is not None:
                            writer.write(encode(response))
            writer.close()

        server = await asyncio.start_server(served, "127.0.0.1", 0)
        return server, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    server, cluster.name_server = await listen(cluster.route)
    servers = [server]
    for broker in cluster.brokers:
        server, broker.address = await listen(broker.answer, broker)
        servers.append(server)
    try:
        yield cluster
    finally:
        for server in servers:
            server.close()
