"""What stands in for RocketMQ's proxy and the MQTT broker in :mod:`bench.downlink_wire`: a process of its own.

Says ``GRPC_PORT MQTT_PORT`` first. Driven by lines on standard input::

    serve COUNT RATE   hand out COUNT commands, 32 in an answer, at most RATE a second (0: as fast as they are asked
                       for); print ``done`` once all of them are acknowledged
    pace COUNT RATE    hand out COUNT commands one by one, RATE a second; print the median and the 99th percentile of
                       the milliseconds from when each was due until its PUBLISH was here

It speaks as much HTTP/2 and MQTT 5 as the gateway needs to go on, and checks nothing but the count.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from bench.downlink_parts import BATCH, BROKER, TOPIC, answer_of
from bench.loadgen import say
from bench.packets import varint
from bench.stats import percentile
from spanbridge.rocketmq.grpc.http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD,
    PREFACE,
    FrameKind,
    Setting,
    frame,
    settings,
    window_update,
)
from spanbridge.rocketmq.grpc.stubs import definition, service

PREPARED = 16_384
"""Different commands; then they repeat. Many more than the gateway has in its hands."""
HEADERS = b"\x88\x00\x0ccontent-type\x10application/grpc\x00\x0dgrpc-encoding\x08identity"
TRAILERS = b"\x00\x0bgrpc-status\x010"
OK = definition.Status(code=definition.Code.OK, message="OK")


def data_of(message: bytes) -> bytes:
    """A message as gRPC writes it."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Supply:
    """The commands to hand out, and those who wait for some."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.acked = 0
        self._messages = [data_of(answer_of(number, context=True)) for number in range(PREPARED)]
        self._next = self._left = self._wanted = 0
        self._pause = self._due = 0.0
        self._waiting: deque[Callable[[list[bytes]], None]] = deque()
        self._owed: deque[float] = deque()
        self._published: deque[float] = deque()
        self._latencies: list[float] = []
        self._paced = 0

    def serve(self, count: int, rate: float) -> None:
        """Hand out so many."""
        self._left, self._wanted = count, self.acked + count
        self._pause, self._due = (BATCH / rate if rate else 0.0), self.loop.time()
        self._hand_out()

    def pace(self, count: int, rate: float) -> None:
        """Hand out so many one by one."""
        self._latencies, self._paced = [], count
        for number in range(count):
            self.loop.call_later((number + random.uniform(0.5, 1.5)) / rate, self._owe)

    def _owe(self) -> None:
        self._owed.append(self.loop.time())
        self._pay()

    def _pay(self) -> None:
        if self._owed and self._waiting:
            self._published += self._owed
            start, count = self._next % (PREPARED - BATCH), len(self._owed)
            self._next += count
            self._owed.clear()
            self._waiting.popleft()(self._messages[start : start + count])

    def published(self) -> None:
        """A PUBLISH is here."""
        if self._published:
            self._latencies.append((self.loop.time() - self._published.popleft()) * 1000)
            if len(self._latencies) == self._paced:
                say(f"{percentile(self._latencies, 0.5)} {percentile(self._latencies, 0.99)}")

    def ask(self, take: Callable[[list[bytes]], None]) -> None:
        """Somebody wants commands."""
        self._waiting.append(take)
        if self._left:
            self.loop.call_at(self._due, self._hand_out)
        self._pay()

    def _hand_out(self) -> None:
        while self._left and self._waiting:
            if self._pause:
                now = self.loop.time()
                if now < self._due:
                    self.loop.call_at(self._due, self._hand_out)
                    return
                self._due = max(self._due + self._pause, now)
            count = min(BATCH, self._left)
            start = self._next % PREPARED
            self._left, self._next = self._left - count, self._next + count
            self._waiting.popleft()(self._messages[start : start + count])

    def took(self, count: int) -> None:
        """Commands were acknowledged."""
        self.acked += count
        if self._wanted and self.acked >= self._wanted:
            self._wanted = 0
            say("done")


class Proxy(asyncio.Protocol):
    """One connection of gRPC."""

    def __init__(self, supply: Supply, port: Callable[[], int]) -> None:
        self._supply = supply
        self._port = port
        self._data = b""
        self._greeted = False
        self._methods: dict[int, str] = {}
        self._requests: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20}) + window_update(0, 1 << 24))

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._greeted:
            if len(self._data) < len(PREFACE):
                return
            self._data, self._greeted = self._data[len(PREFACE) :], True
        at = 0
        while len(self._data) - at >= HEAD:
            size = int.from_bytes(self._data[at : at + 3], "big")
            if len(self._data) - at - HEAD < size:
                break
            kind, flags = self._data[at + 3], self._data[at + 4]
            stream = int.from_bytes(self._data[at + 5 : at + HEAD], "big")
            self._frame(kind, flags, stream, self._data[at + HEAD : at + HEAD + size])
            at += HEAD + size
        self._data = self._data[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == FrameKind.SETTINGS and not flags & ACK:
            self._transport.write(frame(FrameKind.SETTINGS, ACK, 0))
        elif kind == FrameKind.PING and not flags & ACK:
            self._transport.write(frame(FrameKind.PING, ACK, 0, payload))
        elif kind == FrameKind.HEADERS:
            start = payload.index(b"MessagingService/") + 17
            word = payload[start : start + 40]
            self._methods[stream] = word[: next(n for n, byte in enumerate(word) if not chr(byte).isalpha())].decode()
            self._requests[stream] = b""
        elif kind == FrameKind.DATA and stream in self._methods:
            self._requests[stream] += payload
            if self._methods[stream] == "Telemetry":
                self._telemetry(stream)
            elif flags & END_STREAM:
                self._asked(stream, self._methods.pop(stream), self._requests.pop(stream)[5:])
        elif kind == FrameKind.RST_STREAM:
            self._methods.pop(stream, None)

    def _telemetry(self, stream: int) -> None:
        command = service.TelemetryCommand.FromString(self._requests[stream][5:])
        self._requests[stream] = b""
        command.status.CopyFrom(OK)
        head = frame(FrameKind.HEADERS, END_HEADERS, stream, HEADERS)
        self._transport.write(head + frame(FrameKind.DATA, 0, stream, data_of(command.SerializeToString())))

    def _asked(self, stream: int, method: str, request: bytes) -> None:
        if method == "ReceiveMessage":
            self._supply.ask(lambda messages: self._answer(stream, messages, status=True))
            return
        self._answer(stream, [data_of(self._response(method, request).SerializeToString())])

    def _answer(self, stream: int, messages: list[bytes], *, status: bool = False) -> None:
        """As the proxy does it: a frame for each message."""
        parts = [frame(FrameKind.HEADERS, END_HEADERS, stream, HEADERS)]
        if status:
            head = service.ReceiveMessageResponse(status=OK).SerializeToString()
            parts.append(frame(FrameKind.DATA, 0, stream, data_of(head)))
        parts += [frame(FrameKind.DATA, 0, stream, message) for message in messages]
        parts.append(frame(FrameKind.HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS))
        self._transport.write(b"".join(parts))

    def _response(self, method: str, request: bytes) -> Any:
        if method == "QueryRoute":
            return self._route()
        if method == "AckMessage":
            return self._acked(service.AckMessageRequest.FromString(request).entries)
        if method == "Heartbeat":
            return service.HeartbeatResponse(status=OK)
        return service.NotifyClientTerminationResponse(status=OK)

    def _route(self) -> Any:
        response = service.QueryRouteResponse(status=OK)
        for index in range(8):
            queue = response.message_queues.add(id=index, permission=definition.Permission.READ_WRITE)
            queue.topic.name, queue.broker.name = TOPIC, BROKER
            queue.broker.endpoints.addresses.add(host="127.0.0.1", port=self._port())
            queue.accept_message_types.append(definition.MessageType.NORMAL)
        return response

    def _acked(self, entries: Any) -> Any:
        self._supply.took(len(entries))
        response = service.AckMessageResponse(status=OK)
        for one in entries:
            result = response.entries.add(message_id=one.message_id, receipt_handle=one.receipt_handle)
            result.status.CopyFrom(OK)
        return response


class Broker(asyncio.Protocol):
    """One connection of MQTT 5: everything is taken. Each PUBACK is written by itself, as mosquitto does it."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._data = b""

    def data_received(self, data: bytes) -> None:
        buffer = self._data + data
        at, size = 0, len(buffer)
        while at + 2 <= size:
            length, head, shift = 0, at + 1, 0
            while head < size:
                byte = buffer[head]
                length, shift, head = length | (byte & 0x7F) << shift, shift + 7, head + 1
                if byte < 0x80:
                    break
            if head + length > size:
                break
            self._packet(buffer, at, head, head + length)
            at = head + length
        self._data = buffer[at:]

    def _packet(self, buffer: bytes, at: int, head: int, end: int) -> None:
        kind = buffer[at] & 0xF0
        if kind == 0x30 and buffer[at] & 0x06:
            self._supply.published()
            middle = head + 2 + (buffer[head] << 8 | buffer[head + 1])
            self._transport.write(b"\x40\x02" + buffer[middle : middle + 2])
        elif kind == 0x10:
            body = b"\x00\x00" + varint(0)
            self._transport.write(b"\x20" + varint(len(body)) + body)
        elif kind == 0xC0:
            self._transport.write(b"\xd0\x00")
        elif kind == 0xE0:
            self._transport.close()


async def run() -> None:
    """Listen, obey."""
    loop = asyncio.get_running_loop()
    supply = Supply()
    ports: list[int] = []
    for make in (lambda: Proxy(supply, lambda: ports[0]), lambda: Broker(supply)):
        server = await loop.create_server(make, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    say(f"{ports[0]} {ports[1]}")
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        word, count, rate = line.split()
        (supply.pace if word == b"pace" else supply.serve)(int(count), float(rate))


if __name__ == "__main__":
    import uvloop

    uvloop.run(run())
