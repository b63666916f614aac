"""Brokers that hand out messages by POP as a test tells them to, and a consumer of theirs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import VERSION, Frame, FrameDecoder, encode
from spanbridge.rocketmq.remoting.stored import StoredMessage
from tests.rocketmq.consuming import Taker, consuming

from .test_stored import stored

_SETTINGS = {
    "consumeMessageOrderly": False,
    "retryMaxTimes": 3,
    "groupRetryPolicy": {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [7000]}},
}


class FakePopBroker:
    """``refuses`` answers a request by its code instead of the broker; ``asked`` are all requests so far."""

    def __init__(self, name: str, version: int = VERSION) -> None:
        self.name = name
        self.address = ""
        self.version = version
        self.settings: dict[str, Any] = dict(_SETTINGS)
        self.asked: list[Frame] = []
        self.refuses: dict[int, Callable[[Frame], Frame | None]] = {}
        self.popped = 0
        self._messages: list[StoredMessage] = []
        self._arrived = asyncio.Event()
        self._offset = 0

    def put(self, *bodies: bytes, attempts: int = 0, tag: str = "") -> None:
        """Have messages; each body is its id, too."""
        for body in bodies:
            raw = f"UNIQ_KEY\x01{body.decode()}\x02" + (f"TAGS\x01{tag}\x02" if tag else "")
            self._messages.append(
                StoredMessage("t", 0, self._offset, 1000 + self._offset, 0, 1, 2, attempts, body, raw.encode())
            )
            self._offset += 1
        self._arrived.set()

    def of(self, code: RequestCode) -> list[Frame]:
        """The requests of that code."""
        return [frame for frame in self.asked if frame.code == code]

    async def answer(self, request: Frame) -> Frame | None:
        self.asked.append(request)
        if request.code in self.refuses:
            return self.refuses[request.code](request)
        if request.code == RequestCode.POP_MESSAGE:
            return await self._pop(request)
        if request.code == RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG:
            return request.response(ResponseCode.SUCCESS, body=json.dumps(self.settings).encode())
        fields = {"popTime": "5000", "invisibleTime": request.fields.get("invisibleTime", ""), "reviveQid": "1"}
        return Frame(code=0, opaque=request.opaque, flag=1, version=self.version, fields=fields)

    async def _pop(self, request: Frame) -> Frame:
        with suppress(TimeoutError):
            async with asyncio.timeout(int(request.fields["pollTime"]) / 1000):
                while not self._messages:
                    self._arrived.clear()
                    await self._arrived.wait()
        found, self._messages = self._messages[:32], self._messages[32:]
        if not found:
            return request.response(ResponseCode.POLLING_TIMEOUT)
        self.popped += 1
        fields = {
            "popTime": str(self.popped), "invisibleTime": request.fields["invisibleTime"], "reviveQid": "0",
            "restNum": "0", "startOffsetInfo": f"0 0 {found[0].queue_offset}",
        }  # fmt: skip
        return Frame(code=0, opaque=request.opaque, flag=1, fields=fields, body=b"".join(map(stored, found)))

    def acked(self) -> list[int]:
        """The offsets that were acknowledged, in order."""
        offsets = [int(frame.fields["offset"]) for frame in self.of(RequestCode.ACK_MESSAGE)]
        for frame in self.of(RequestCode.BATCH_ACK_MESSAGE):
            for entry in json.loads(frame.body)["acks"]:
                bits = int.from_bytes(base64.b64decode(entry["b"]), "little")
                offsets += [entry["so"] + bit for bit in range(bits.bit_length()) if bits >> bit & 1]
        return sorted(offsets)


class FakePopCluster:
    """A name server and brokers, on loopback."""

    def __init__(self, *brokers: FakePopBroker) -> None:
        self.brokers = list(brokers)
        self.name_server = ""
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def route(self, request: Frame) -> Frame | None:
        found = {
            "brokerDatas": [{"brokerName": one.name, "brokerAddrs": {"0": one.address}} for one in self.brokers],
            "queueDatas": [
                {"brokerName": one.name, "perm": 6, "readQueueNums": 1, "writeQueueNums": 1} for one in self.brokers
            ],
        }
        return request.response(ResponseCode.SUCCESS, body=json.dumps(found).encode())

    async def listen(self, answer: Callable[[Frame], Any]) -> str:
        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async def respond(frame: Frame) -> None:
                response = await answer(frame)
                if response is not None and not writer.is_closing():
                    writer.write(encode(response))

            decoder = FrameDecoder()
            mine: set[asyncio.Task[None]] = set()
            with suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    for frame in decoder.feed(data):
                        task = asyncio.get_running_loop().create_task(respond(frame))
                        for tasks in (mine, self._tasks):
                            tasks.add(task)
                            task.add_done_callback(tasks.discard)
            for task in mine:  # requests that were kept open end with their connection
                task.cancel()
            writer.close()

        server = await asyncio.start_server(served, "127.0.0.1", 0)
        self._servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def add(self, broker: FakePopBroker) -> None:
        """One more broker, in routes asked for from now on."""
        broker.address = await self.listen(broker.answer)
        if broker not in self.brokers:
            self.brokers.append(broker)

    async def start(self) -> None:
        self.name_server = await self.listen(self.route)
        for broker in self.brokers:
            await self.add(broker)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def popping(*brokers: FakePopBroker, **options: Any) -> AsyncIterator[tuple[Taker, FakePopCluster]]:
    """A consumer of group ``g`` and topic ``t`` that receives from these."""
    cluster = FakePopCluster(*brokers)
    await cluster.start()
    quick: dict[str, Any] = {
        "heartbeat_interval": 0.1, "route_refresh_interval": 0.05, "backoff_initial": 0.01, "backoff_maximum": 0.05,
        "give_back_timeout": 2.0,
    }  # fmt: skip
    try:
        async with consuming(cluster.name_server, "g", "t", protocol="remoting", **quick | options) as taker:
            yield taker, cluster
    finally:
        await cluster.stop()
