"""The little of RocketMQ's remoting protocol that setting up topics and consumer groups takes.

A frame is ``length(4) | serialisation(1) + header length(3) | header (JSON) | body``, all big-endian, the length not
counting itself (``RemotingCommand`` in RocketMQ's ``remoting`` module). The tools that come with RocketMQ start a JVM
for each command, about two seconds; this takes milliseconds.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from spanbridge.devstack.errors import ServiceError

# org.apache.rocketmq.remoting.protocol.RequestCode and ResponseCode
UPDATE_AND_CREATE_TOPIC = 17
GET_ROUTE_INFO_BY_TOPIC = 105
UPDATE_AND_CREATE_SUBSCRIPTION_GROUP = 200
SUCCESS = 0
TOPIC_NOT_EXIST = 17

_PERMISSION_READ_WRITE = 6
_JSON_HEADER = 0
_MAX_FRAME = 16 * 1024 * 1024
_opaque = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its code, the remark that explains a failure, its header fields and its body."""

    code: int
    remark: str
    fields: dict[str, str]
    body: bytes


def call(
    port: int,
    code: int,
    *,
    host: str = "127.0.0.1",
    fields: dict[str, str] | None = None,
    body: bytes = b"",
    timeout: float = 5.0,
) -> Answer:
    """Send one request on a connection of its own, and return the response.

    Raises:
        ServiceError: nobody answered within ``timeout`` seconds, or not in this protocol.
    """
    header = {"code": code, "language": "PYTHON", "version": 0, "opaque": next(_opaque), "flag": 0}
    head = json.dumps(header | {"extFields": fields or {}}).encode()
    request = struct.pack(">ii", 4 + len(head) + len(body), _JSON_HEADER << 24 | len(head)) + head + body
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(request)
            length = struct.unpack(">i", _read(connection, 4))[0]
            if not 4 <= length <= _MAX_FRAME:
                raise ServiceError(f"{host}:{port} does not speak RocketMQ's remoting protocol")
            frame = _read(connection, length)
    except OSError as error:
        raise ServiceError(f"no answer from RocketMQ on {host}:{port}: {error}") from error
    end = 4 + (struct.unpack_from(">i", frame)[0] & 0xFFFFFF)
    response: dict[str, Any] = json.loads(frame[4:end])
    return Answer(
        int(response["code"]), str(response.get("remark") or ""), response.get("extFields") or {}, frame[end:]
    )


def _read(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionResetError("connection closed in the middle of an answer")
        received += chunk
    return bytes(received)


def create_topic(port: int, name: str, *, message_type: str, queues: int) -> None:
    """Create or update a topic on the broker whose remoting port is ``port``.

    Raises:
        ServiceError: the broker refused, or did not answer.
    """
    fields = {
        "topic": name,
        "defaultTopic": "TBW102",
        "readQueueNums": str(queues),
        "writeQueueNums": str(queues),
        "perm": str(_PERMISSION_READ_WRITE),
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": "0",
        "order": "false",
        "attributes": f"+message.type={message_type}",
    }
    answer = call(port, UPDATE_AND_CREATE_TOPIC, fields=fields)
    if answer.code != SUCCESS:
        raise ServiceError(
            f"RocketMQ refused to create topic {name!r} of type {message_type}: {answer.remark} (code {answer.code})"
        )


def create_group(
    port: int, name: str, *, fifo: bool, max_attempts: int, attributes: dict[str, str] | None = None
) -> None:
    """Create or update a consumer group; ``fifo`` delivers each message group's messages in order.

    Raises:
        ServiceError: the broker refused, or did not answer.
    """
    group = {
        "groupName": name,
        "consumeEnable": True,
        "consumeMessageOrderly": fifo,
        "retryMaxTimes": max_attempts,
        "attributes": attributes or {},
    }
    answer = call(port, UPDATE_AND_CREATE_SUBSCRIPTION_GROUP, body=json.dumps(group).encode())
    if answer.code != SUCCESS:
        raise ServiceError(f"RocketMQ refused to create group {name!r}: {answer.remark} (code {answer.code})")


def has_route(port: int, topic: str) -> bool:
    """Whether the name server on ``port`` knows a route for the topic."""
    answer = call(port, GET_ROUTE_INFO_BY_TOPIC, fields={"topic": topic})
    if answer.code not in (SUCCESS, TOPIC_NOT_EXIST):
        raise ServiceError(f"the name server did not answer for topic {topic!r}: {answer.remark} (code {answer.code})")
    return answer.code == SUCCESS
