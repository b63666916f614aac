"""Reading a queue's messages from a broker by offset, without joining a consumer group. No I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.stored import StoredMessage, read_messages

_SUSPEND: Final = 0x2  # PullSysFlag
_SUBSCRIPTION: Final = 0x4
FOUND_OR_NOT: Final = frozenset(
    {
        ResponseCode.SUCCESS,
        ResponseCode.PULL_NOT_FOUND,
        ResponseCode.PULL_RETRY_IMMEDIATELY,
        ResponseCode.PULL_OFFSET_MOVED,
    }
)
"""The codes of answers to ``PULL_MESSAGE``: messages, or why there are none."""


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
    fields = pull_fields(group, topic, queue, offset, at_most=at_most)
    return Call(
        what=f"give messages of topic {topic!r}, queue {queue}, offset {offset}",
        code=RequestCode.PULL_MESSAGE,
        fields=fields,
        accepted=FOUND_OR_NOT,
        read=_pulled,
    )


def pull_fields(
    group: str,
    topic: str,
    queue: int,
    offset: int,
    *,
    at_most: int,
    wait: float | None = None,
    expression: str = "*",
    kind: str = "TAG",
) -> dict[str, str]:
    """``PullMessageRequestHeader``. The broker answers at once, or waits so many seconds for messages."""
    return {
        "consumerGroup": group,
        "topic": topic,
        "queueId": str(queue),
        "queueOffset": str(offset),
        "maxMsgNums": str(at_most),
        "sysFlag": str(_SUBSCRIPTION | (0 if wait is None else _SUSPEND)),
        "commitOffset": "0",
        "suspendTimeoutMillis": str(int((wait or 0.0) * 1000)),
        "subscription": expression,
        "subVersion": "0",
        "expressionType": kind,
    }


def found_messages(response: Frame) -> tuple[StoredMessage, ...]:
    """The messages of an answer; none where it only says why there are none."""
    return tuple(read_messages(response.body)) if response.code == ResponseCode.SUCCESS else ()


def _pulled(response: Frame) -> Pulled:
    return Pulled(
        found_messages(response),
        int(response.fields["nextBeginOffset"]),
        int(response.fields["minOffset"]),
        int(response.fields["maxOffset"]),
    )
