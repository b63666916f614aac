"""Reading a queue's messages from a broker by offset, without joining a consumer group. No I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.stored import StoredMessage, read_messages

_FLAG_SUBSCRIPTION: Final = 0x4  # PullSysFlag
_ACCEPTED: Final = frozenset(
    {
        ResponseCode.SUCCESS,
        ResponseCode.PULL_NOT_FOUND,
        ResponseCode.PULL_RETRY_IMMEDIATELY,
        ResponseCode.PULL_OFFSET_MOVED,
    }
)


class Pulled(NamedTuple):
    """Messages from one queue. ``next_offset`` is where to go on; the queue holds ``min_offset`` up to ``max_offset``.

    No messages: the queue holds none at the offset asked for.
    """

    messages: tuple[StoredMessage, ...]
    next_offset: int
    min_offset: int
    max_offset: int


def pull(group: str, topic: str, queue: int, offset: int, *, at_most: int = 32) -> Call[Pulled]:
    """Messages of a queue from ``offset`` on, at once. Nothing is committed.

    The broker hands out fewer than ``at_most`` where its own limits say so (``maxTransferCountOnMessageInMemory``).
    The group must exist, unless the broker makes groups by itself.
    """
    fields = {
        "consumerGroup": group,
        "topic": topic,
        "queueId": str(queue),
        "queueOffset": str(offset),
        "maxMsgNums": str(at_most),
        "sysFlag": str(_FLAG_SUBSCRIPTION),
        "commitOffset": "0",
        "suspendTimeoutMillis": "0",
        "subscription": "*",
        "subVersion": "0",
        "expressionType": "TAG",
    }
    return Call(
        what=f"give messages of topic {topic!r}, queue {queue}, offset {offset}",
        code=RequestCode.PULL_MESSAGE,
        fields=fields,
        accepted=_ACCEPTED,
        read=_pulled,
    )


def _pulled(response: Frame) -> Pulled:
    found = response.code == ResponseCode.SUCCESS
    return Pulled(
        tuple(read_messages(response.body)) if found else (),
        int(response.fields["nextBeginOffset"]),
        int(response.fields["minOffset"]),
        int(response.fields["maxOffset"]),
    )
