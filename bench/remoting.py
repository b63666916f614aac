"""Reads messages and queue offsets straight from a RocketMQ broker, over its remoting protocol.

The gRPC proxy hands messages out far slower than the gateway writes them. The broker's own protocol lets the benchmark
read every stored message back, with the time it was stored, without a consumer group's state and in seconds. Request
codes, header fields and the layout of a stored message are those of Apache RocketMQ 5.5.0 (``RequestCode``,
``PullMessageRequestHeader``, ``MessageDecoder``).
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

PULL_MESSAGE = 11
GET_MAX_OFFSET = 30

_SUCCESS = 0
_FLAG_SUBSCRIPTION = 0x4
_BORN_HOST_V6, _STORE_HOST_V6 = 0x10, 0x20  # MessageSysFlag
_PULL_COUNT = 1024  # the broker caps it further (maxTransferCountOnMessageInMemory)


class RemotingError(Exception):
    """The broker refused or answered what this client does not understand."""


class Stored(NamedTuple):
    """A message as the broker stored it. Times are Unix time in milliseconds."""

    queue_offset: int
    store_ms: int
    body: bytes
    raw_properties: bytes = b""

    @property
    def properties(self) -> dict[str, str]:
        """User and system properties (``MessageDecoder.string2messageProperties``)."""
        pairs = (item.split("\x01", 1) for item in self.raw_properties.decode().split("\x02") if "\x01" in item)
        return dict(pairs)


class Broker:
    """A connection to a broker's remoting port. Not thread-safe; closed by ``with``."""

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", 1 << 18)
        self._opaque = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def max_offsets(self, topic: str, queues: int) -> list[int]:
        """For each queue the offset that the next message will get.

        :raises RemotingError: the broker refused.
        """
        requests = [(GET_MAX_OFFSET, {"topic": topic, "queueId": str(queue)}) for queue in range(queues)]
        offsets = []
        for header, _ in self._ask(requests):
            if header["code"] != _SUCCESS:
                raise RemotingError(f"offset of {topic}: {header.get('remark') or header['code']}")
            offsets.append(int(header["extFields"]["offset"]))
        return offsets

    def read(self, topic: str, begin: Iterable[int], end: Iterable[int]) -> Iterator[Stored]:
        """All messages of a topic between two lists of offsets, one entry for each queue; ``end`` is excluded.

        :raises RemotingError: the broker refused, or a message between the offsets cannot be read.
        """
        at, stop = list(begin), list(end)
        while pending := [queue for queue in range(len(at)) if at[queue] < stop[queue]]:
            requests = [(PULL_MESSAGE, _pull(topic, queue, at[queue])) for queue in pending]
            for queue, (header, body) in zip(pending, self._ask(requests), strict=True):
                if header["code"] != _SUCCESS:
                    raise RemotingError(f"{topic}, queue {queue}, offset {at[queue]}: {header.get('remark')}")
                for stored in decode(body):
                    if stored.queue_offset < stop[queue]:
                        yield stored
                at[queue] = int(header["extFields"]["nextBeginOffset"])

    def _ask(self, requests: list[tuple[int, dict[str, str]]]) -> list[tuple[dict[str, Any], bytes]]:
        """Send requests in one write; the answers in the order of the requests, whatever order they came in."""
        frames = []
        for code, fields in requests:
            self._opaque += 1
            header = {"code": code, "language": "PYTHON", "version": 0, "opaque": self._opaque, "flag": 0}
            encoded = json.dumps({**header, "extFields": fields}).encode()
            frames.append(struct.pack(">II", 4 + len(encoded), len(encoded)) + encoded)  # serialize type 0: JSON
        self._socket.sendall(b"".join(frames))
        answers: dict[int, tuple[dict[str, Any], bytes]] = {}
        while len(answers) < len(requests):
            answer, body = self._receive()
            answers[int(answer["opaque"])] = answer, body
        return [answers[opaque] for opaque in sorted(answers)]

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        total, size = struct.unpack(">II", self._exactly(8))
        if size >> 24:
            raise RemotingError(f"answer in serialization {size >> 24}, expected JSON")
        header: dict[str, Any] = json.loads(self._exactly(size))
        return header, self._exactly(total - 4 - size)

    def _exactly(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        if len(data) < size:
            raise RemotingError("the broker closed the connection")
        return data


def _pull(topic: str, queue: int, offset: int) -> dict[str, str]:
    return {
        "consumerGroup": "spanbridge-bench-reader",
        "topic": topic,
        "queueId": str(queue),
        "queueOffset": str(offset),
        "maxMsgNums": str(_PULL_COUNT),
        "sysFlag": str(_FLAG_SUBSCRIPTION),
        "commitOffset": "0",
        "suspendTimeoutMillis": "0",
        "subscription": "*",
        "subVersion": "0",
        "expressionType": "TAG",
    }


def decode(data: bytes) -> Iterator[Stored]:
    """Messages out of the body of a pull response (``MessageDecoder.decode``)."""
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        queue_offset, _physical, sys_flag = struct.unpack_from(">QQI", data, at + 20)
        cursor = at + 40 + 8 + (20 if sys_flag & _BORN_HOST_V6 else 8)
        (store_ms,) = struct.unpack_from(">Q", data, cursor)
        cursor += 8 + (20 if sys_flag & _STORE_HOST_V6 else 8) + 4 + 8
        (body_size,) = struct.unpack_from(">I", data, cursor)
        body_end = cursor + 4 + body_size
        topic_end = body_end + 1 + data[body_end]
        (size_of_properties,) = struct.unpack_from(">H", data, topic_end)
        properties = data[topic_end + 2 : topic_end + 2 + size_of_properties]
        yield Stored(queue_offset, store_ms, data[cursor + 4 : body_end], properties)
        at += size
