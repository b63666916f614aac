"""Receiving by POP: the broker hands out a topic's messages, hides them for a while and counts attempts. No I/O.

What answers a message is its checkpoint: where in which queue a request took messages, and when. ``ExtraInfoUtil``
writes it as text, for requests that concern one message. A broker takes answers to checkpoints that have run out and
ignores them: who asks looks at the time first.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from typing import Final, NamedTuple

from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.incoming import Incoming
from spanbridge.rocketmq.remoting.stored import StoredMessage, read_messages

MOST: Final = 32
"""Messages that one request may ask for (``PopMessageProcessor``)."""
_NOTHING: Final = frozenset({ResponseCode.POLLING_TIMEOUT, ResponseCode.PULL_NOT_FOUND})
_FROM_RETRY: Final = frozenset({"1", "2"})
_CHECKPOINT: Final = "POP_CK"
_WIDEST: Final = 4096
"""How far apart the first and the last message of a batch of acknowledgements may be: they go as bits."""


class Checkpoint(NamedTuple):
    """What the messages share that one request took from one queue.

    ``retry`` is "0" for the topic's own queues, "1" and "2" for those of the group's retry topic, in either form of its
    name. ``start`` is the queue's offset from which it took. Times are the broker's, in milliseconds.
    """

    retry: str
    queue: int
    start: int
    pop_time: int
    invisible: int
    revive_queue: int

    def text(self, broker: str, offset: int) -> str:
        """The checkpoint of one message, as requests carry it (``extraInfo``)."""
        return (
            f"{self.start} {self.pop_time} {self.invisible} {self.revive_queue} {self.retry} {broker} {self.queue} "
            f"{offset}"
        )


class GroupTopic(NamedTuple):
    """A consumer group and the topic it receives from, by the names that brokers know them by."""

    group: str
    topic: str

    def real_topic(self, checkpoint: Checkpoint) -> str:
        """The topic that holds the queue: this one, or the group's retry topic (``KeyBuilder``)."""
        if checkpoint.retry == "1":
            return f"%RETRY%{self.group}_{self.topic}"
        return self.topic if checkpoint.retry == "0" else f"%RETRY%{self.group}+{self.topic}"


class PopHandle(NamedTuple):
    """What answers one message: its checkpoint, its offset in the queue, and where the broker stored it."""

    checkpoint: Checkpoint
    offset: int
    physical_offset: int


def pop(
    names: GroupTopic,
    expression: str,
    kind: str,
    *,
    at_most: int,
    invisible: float,
    wait: float,
    attempt_id: str | None,
) -> Call[list[Incoming]]:
    """Messages of all queues that a broker has of a topic, and of the group's retry topic there; none after ``wait``.

    Times are in seconds. ``attempt_id`` is given for a group that receives in order: a queue is locked by what was
    taken from it and is not answered; with the id that took it, the same messages come again.
    """
    fields = {
        "consumerGroup": names.group,
        "topic": names.topic,
        "queueId": "-1",
        "maxMsgNums": str(at_most),
        "invisibleTime": str(int(invisible * 1000)),
        "pollTime": str(int(wait * 1000)),
        "bornTime": "0",  # when it arrives, by the broker's clock: ours may differ
        "initMode": "1",  # ConsumeInitMode.MAX
        "expType": kind,
        "exp": expression,
        "order": "false" if attempt_id is None else "true",
    }
    if attempt_id is not None:
        fields["attemptId"] = attempt_id
    return Call(
        what=f"give messages of topic {names.topic!r} to group {names.group!r}",
        code=RequestCode.POP_MESSAGE,
        fields=fields,
        accepted=frozenset({ResponseCode.SUCCESS, *_NOTHING}),
        read=_popped,
    )


def _popped(response: Frame) -> list[Incoming]:
    if response.code != ResponseCode.SUCCESS:
        return []
    fields = response.fields
    pop_time, invisible = int(fields["popTime"]), int(fields["invisibleTime"])
    revive_queue = int(fields["reviveQid"])
    checkpoints = {
        (retry, int(queue)): Checkpoint(retry, int(queue), int(start), pop_time, invisible, revive_queue)
        for retry, queue, start in _triples(fields.get("startOffsetInfo"))
    }
    counts = {(retry, key): int(count) for retry, key, count in _triples(fields.get("orderCountInfo"))}
    found = []
    for stored in read_messages(response.body):
        checkpoint = _checkpoint(stored, pop_time) or checkpoints["0", stored.queue_id]
        attempts = stored.attempts
        if counts:  # a group that receives in order: its broker counts beside the messages
            of_queue = counts.get(("0", str(stored.queue_id)), attempts)
            attempts = counts.get(("0", f"qo{stored.queue_id}%{stored.queue_offset}"), of_queue)
        handle = PopHandle(checkpoint, stored.queue_offset, stored.physical_offset)
        found.append(Incoming(stored, handle, attempts))
    return found


def _checkpoint(stored: StoredMessage, pop_time: int) -> Checkpoint | None:
    """That of a message of the retry topic: it is given as if it were of the topic itself, and brings it along."""
    if not stored.attempts or _CHECKPOINT.encode() not in stored.raw_properties:
        return None
    parts = stored.properties.get(_CHECKPOINT, "").split(" ")
    if len(parts) != 8 or parts[4] not in _FROM_RETRY or parts[1] != str(pop_time):
        return None  # a sender's own property of that name
    start, popped, invisible, revive_queue, retry, _, queue, _ = parts
    return Checkpoint(retry, int(queue), int(start), int(popped), int(invisible), int(revive_queue))


def _triples(text: str | None) -> list[tuple[str, str, str]]:
    """``"0 3 17;0 4 9"``: the queues' kind, a queue, a number. What is something else raises ``ValueError``."""
    triples = []
    for item in (text or "").split(";"):
        if item:
            one, two, three = item.split(" ")
            triples.append((one, two, three))
    return triples


def ack(names: GroupTopic, handle: PopHandle, broker: str) -> Call[None]:
    """A message was handled."""
    return Call(
        what=f"acknowledge a message of group {names.group!r}",
        code=RequestCode.ACK_MESSAGE,
        fields=_about_one(names, handle, broker),
        read=_nothing,
    )


def ack_batch(names: GroupTopic, broker: str, handles: Iterable[PopHandle]) -> Call[None]:
    """Messages were handled, each of which :func:`fits`.

    A broker does not say which of them it did not know (any more).
    """
    bits: dict[Checkpoint, int] = {}
    for checkpoint, offset, _ in handles:
        bits[checkpoint] = bits.get(checkpoint, 0) | 1 << offset - checkpoint.start
    acks = [
        {
            "c": names.group,
            "t": names.topic,
            "r": one.retry,
            "so": one.start,
            "q": one.queue,
            "rq": one.revive_queue,
            "pt": one.pop_time,
            "it": one.invisible,
            "b": b64encode(mask.to_bytes((mask.bit_length() + 7) // 8, "little")).decode(),
        }
        for one, mask in bits.items()
    ]
    return Call(
        what=f"acknowledge messages of group {names.group!r}",
        code=RequestCode.BATCH_ACK_MESSAGE,
        body=json.dumps({"brokerName": broker, "acks": acks}, separators=(",", ":")).encode(),
        read=_nothing,
    )


def fits(handle: PopHandle) -> bool:
    """Whether a message can be acknowledged in a batch. Filters may take messages that are far apart."""
    return 0 <= handle.offset - handle.checkpoint.start < _WIDEST


def change_invisible(names: GroupTopic, handle: PopHandle, broker: str, invisible: float) -> Call[PopHandle]:
    """Hide a message for so many seconds from now, and have what answers it then."""

    def read(response: Frame) -> PopHandle:
        popped = int(response.fields.get("popTime") or 0)
        if not popped:
            return handle  # of a queue in order that has gone past it
        before = handle.checkpoint
        hidden, revive_queue = int(response.fields["invisibleTime"]), int(response.fields["reviveQid"])
        changed = Checkpoint(before.retry, before.queue, handle.offset, popped, hidden, revive_queue)
        return PopHandle(changed, handle.offset, handle.physical_offset)

    fields = _about_one(names, handle, broker)
    fields["invisibleTime"] = str(max(1, int(invisible * 1000)))
    return Call(
        what=f"hide a message from group {names.group!r}",
        code=RequestCode.CHANGE_MESSAGE_INVISIBLETIME,
        fields=fields,
        read=read,
    )


def _about_one(names: GroupTopic, handle: PopHandle, broker: str) -> dict[str, str]:
    checkpoint, offset, _ = handle
    return {
        "consumerGroup": names.group,
        "topic": names.real_topic(checkpoint),
        "queueId": str(checkpoint.queue),
        "extraInfo": checkpoint.text(broker, offset),
        "offset": str(offset),
    }


def _nothing(_: Frame) -> None:
    return None
