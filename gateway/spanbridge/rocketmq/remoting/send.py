"""What a producer asks of brokers: to store messages, to know that it lives, to forget it. No I/O."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import Frame

PRODUCER_GROUP: Final = "spanbridge"
"""Under this name brokers list the gateway (``mqadmin producerConnection``)."""
FIRST_WITH_TIMERS: Final = 413
"""``MQVersion.V5_0_0``: brokers before it do not know delivery timestamps."""

_LESS_SAFE: Final = {
    ResponseCode.FLUSH_DISK_TIMEOUT: "master_persistence_timeout",
    ResponseCode.SLAVE_NOT_AVAILABLE: "ha_not_available",
    ResponseCode.FLUSH_SLAVE_TIMEOUT: "slave_persistence_timeout",
}
_STORED: Final = frozenset({ResponseCode.SUCCESS, *_LESS_SAFE})


class WriteQueue(NamedTuple):
    """One queue of a topic that takes messages, on the broker of that name."""

    broker: str
    queue: int


class Stored(NamedTuple):
    """A request's messages are stored. ``less_safe`` is why not as safely as the broker is configured to, "" if so."""

    less_safe: str


_COMPRESSED: Final = "1"
"""``MessageSysFlag.COMPRESSED_FLAG`` without a type, which clients of all versions read as zlib."""


def send_batch(topic: str, queue: WriteQueue, body: bytes, born_ms: str, *, compressed: bool = False) -> Call[Stored]:
    """Store messages in the order of ``body``, all or none. They have no delivery timestamps: brokers refuse those.

    ``born_ms`` is Unix time in milliseconds, one for all; each has its own as a property. With ``compressed`` the body
    of each is.
    """
    fields = _fields(topic, queue, born_ms) | {"m": "true"}
    if compressed:
        fields["f"] = _COMPRESSED
    return _storing(topic, RequestCode.SEND_BATCH_MESSAGE, fields, body)


def send_message(
    topic: str, queue: WriteQueue, body: bytes, properties: str, born_ms: str, *, compressed: bool = False
) -> Call[Stored]:
    """Store one message."""
    fields = _fields(topic, queue, born_ms) | {"i": properties}
    if compressed:
        fields["f"] = _COMPRESSED
    return _storing(topic, RequestCode.SEND_MESSAGE_V2, fields, body)


def _fields(topic: str, queue: WriteQueue, born_ms: str) -> dict[str, str]:
    """``SendMessageRequestHeaderV2``. A broker makes a missing topic after the one named in `c`: itself, so never."""
    return {
        "a": PRODUCER_GROUP,
        "b": topic,
        "c": topic,
        "d": "4",
        "e": str(queue.queue),
        "f": "0",
        "g": born_ms,
        "h": "0",
        "i": "",
        "j": "0",
        "k": "false",
        "m": "false",
        "n": queue.broker,
    }


def _storing(topic: str, code: RequestCode, fields: dict[str, str], body: bytes) -> Call[Stored]:
    return Call(
        what=f"store messages of topic {topic!r}", code=code, fields=fields, body=body, accepted=_STORED, read=_stored
    )


def _stored(response: Frame) -> Stored:
    return Stored(_LESS_SAFE.get(ResponseCode(response.code), ""))


def heartbeat(client_id: str) -> Call[int]:
    """Tell a broker that this producer lives; it forgets one that it has not heard of for 120 s.

    The answer is the broker's version (an ordinal of ``MQVersion``).
    """
    living = {
        "clientID": client_id,
        "producerDataSet": [{"groupName": PRODUCER_GROUP}],
        "consumerDataSet": [],
        "heartbeatFingerprint": 0,
        "withoutSub": False,
    }
    return Call(
        what="take a heartbeat",
        code=RequestCode.HEART_BEAT,
        body=json.dumps(living, separators=(",", ":")).encode(),
        read=lambda response: response.version,
    )


def unregister(client_id: str) -> Call[None]:
    """Tell a broker that this producer is gone."""
    return Call(
        what="forget this producer",
        code=RequestCode.UNREGISTER_CLIENT,
        fields={"clientID": client_id, "producerGroup": PRODUCER_GROUP},
        read=lambda _: None,
    )
