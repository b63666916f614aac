"""What a consumer that pulls asks of brokers: messages from an offset on, offsets, locks, and who else is there.

No I/O.
Unlike with POP, queues are shared out among the members of a group, and each knows by itself how far it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import Frame, parse_json
from spanbridge.rocketmq.remoting.pop import GroupTopic
from spanbridge.rocketmq.remoting.pull import FOUND_OR_NOT, found_messages, pull_fields
from spanbridge.rocketmq.remoting.stored import StoredMessage


class ReadQueue(NamedTuple):
    """A queue that a group reads: of its topic, or of its retry topic. ``topic`` is the name that brokers know."""

    topic: str
    broker: str
    queue: int


class PullAnswer(NamedTuple):
    """``moved``: the queue does not hold the offset asked for."""

    messages: tuple[StoredMessage, ...]
    next_offset: int
    moved: bool


def pull_waiting(
    group: str, queue: ReadQueue, offset: int, *, expression: str, kind: str, at_most: int, wait: float
) -> Call[PullAnswer]:
    """Messages of a queue from ``offset`` on; none after ``wait`` seconds.

    It commits nothing, although it could: a broker that handles it late would set the group's offset back.
    """
    fields = pull_fields(
        group, queue.topic, queue.queue, offset, at_most=at_most, wait=wait, expression=expression, kind=kind
    )
    return Call(
        what=f"give messages of topic {queue.topic!r}, queue {queue.queue}, to group {group!r}",
        code=RequestCode.PULL_MESSAGE,
        fields=fields,
        accepted=FOUND_OR_NOT,
        read=_answer,
    )


def _answer(response: Frame) -> PullAnswer:
    return PullAnswer(
        found_messages(response),
        int(response.fields["nextBeginOffset"]),
        response.code == ResponseCode.PULL_OFFSET_MOVED,
    )


def first_offset(group: str, queue: ReadQueue) -> Call[int | None]:
    """Where the group goes on in a queue; None where it has never been and the queue's beginning is gone."""

    def read(response: Frame) -> int | None:
        return int(response.fields["offset"]) if response.code == ResponseCode.SUCCESS else None

    return Call(
        what=f"give the offset of group {group!r} in topic {queue.topic!r}, queue {queue.queue}",
        code=RequestCode.QUERY_CONSUMER_OFFSET,
        fields={"consumerGroup": group, "topic": queue.topic, "queueId": str(queue.queue)},
        accepted=frozenset({ResponseCode.SUCCESS, ResponseCode.QUERY_NOT_FOUND}),
        read=read,
    )


def commit_offset(group: str, queue: ReadQueue, offset: int) -> Call[None]:
    """The group has handled all messages of a queue before this offset."""
    return Call(
        what=f"take the offset of group {group!r} in topic {queue.topic!r}, queue {queue.queue}",
        code=RequestCode.UPDATE_CONSUMER_OFFSET,
        fields={
            "consumerGroup": group,
            "topic": queue.topic,
            "queueId": str(queue.queue),
            "commitOffset": str(offset),
        },
        read=_nothing,
    )


def member_ids(group: str) -> Call[tuple[str, ...]]:
    """The client ids of a group's members, sorted: all members have to share the queues out alike."""

    def read(response: Frame) -> tuple[str, ...]:
        if response.code != ResponseCode.SUCCESS:
            return ()  # SYSTEM_ERROR "no consumer for this group" (ConsumerManageProcessor)
        return tuple(sorted(map(str, parse_json(response.body)["consumerIdList"])))

    return Call(
        what=f"name the members of group {group!r}",
        code=RequestCode.GET_CONSUMER_LIST_BY_GROUP,
        fields={"consumerGroup": group},
        accepted=frozenset({ResponseCode.SUCCESS, ResponseCode.SYSTEM_ERROR}),
        read=read,
    )


def lock_queues(group: str, client_id: str, queues: Iterable[ReadQueue]) -> Call[frozenset[ReadQueue]]:
    """Have queues of one broker for this client alone, for 60 s; those that are not another's."""

    def read(response: Frame) -> frozenset[ReadQueue]:
        locked = parse_json(response.body)["lockOKMQSet"]
        return frozenset(ReadQueue(str(one["topic"]), str(one["brokerName"]), int(one["queueId"])) for one in locked)

    body = _lock_body(group, client_id, queues)
    return Call(what=f"lock queues for group {group!r}", code=RequestCode.LOCK_BATCH_MQ, body=body, read=read)


def unlock_queues(group: str, client_id: str, queues: Iterable[ReadQueue]) -> Call[None]:
    """Let others have them."""
    body = _lock_body(group, client_id, queues)
    return Call(what=f"unlock queues of group {group!r}", code=RequestCode.UNLOCK_BATCH_MQ, body=body, read=_nothing)


def _lock_body(group: str, client_id: str, queues: Iterable[ReadQueue]) -> bytes:
    named = [{"topic": one.topic, "brokerName": one.broker, "queueId": one.queue} for one in queues]
    return json.dumps({"consumerGroup": group, "clientId": client_id, "mqSet": named}).encode()


def share(queues: Sequence[ReadQueue], members: Sequence[str], member: str) -> Sequence[ReadQueue]:
    """The queues of one member, as ``AllocateMessageQueueAveragely`` has it: what Java clients do by default.

    Both are sorted. Who is not among the members has none.
    """
    if member not in members:
        return ()
    index, (size, rest) = members.index(member), divmod(len(queues), len(members))
    if len(queues) <= len(members):
        return queues[index : index + 1]
    start = index * (size + 1) if index < rest else index * size + rest
    return queues[start : start + size + (index < rest)]


def retry_topic(names: GroupTopic) -> str:
    """Where messages come again that were sent back."""
    return f"%RETRY%{names.group}"


def by_broker(queues: Iterable[ReadQueue]) -> Mapping[str, list[ReadQueue]]:
    """Queues by their brokers."""
    found: dict[str, list[ReadQueue]] = {}
    for queue in queues:
        found.setdefault(queue.broker, []).append(queue)
    return found


def _nothing(_: Frame) -> None:
    return None
