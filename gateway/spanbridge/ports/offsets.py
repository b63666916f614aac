"""Where consumer groups stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class TopicQueue:
    """One queue of a RocketMQ topic, on the broker of that name."""

    topic: str
    broker: str
    queue: int


class Offsets(Protocol):
    """Where consumer groups stand in a cluster's queues, asked of its brokers. Reads no message and changes nothing.

    An offset counts the messages of one queue from 0.
    """

    @property
    def requests(self) -> int:
        """Requests sent so far."""

    async def queues(self, topic: str) -> Sequence[TopicQueue]:
        """The queues that can be consumed from; none where there is no such topic.

        :raises OffsetsError: nobody says, here and below.
        """

    async def max_offset(self, queue: TopicQueue) -> int:
        """The offset that the queue's next message will get."""

    async def min_offset(self, queue: TopicQueue) -> int:
        """The offset of the oldest message that the queue still holds."""

    async def offset_at(self, queue: TopicQueue, milliseconds: int) -> int:
        """The offset of the first message stored at this time (Unix time) or later; the max offset where all are older.

        A broker whose store answers otherwise gives the last message's offset where all are older.
        """

    async def committed(self, group: str, queue: TopicQueue) -> int | None:
        """The offset of the group's next message of the queue; None where the group has never committed one."""

    async def members(self, group: str, broker: str) -> int | None:
        """How many consumers of the group this broker knows; None where it does not say."""

    async def ordered(self, broker: str) -> Mapping[str, bool]:
        """The consumer groups that exist on this broker, and whether a group receives in order."""

    async def groups(self, topic: str) -> Sequence[str]:
        """The groups that consume a topic or have offsets in it."""

    async def close(self) -> None:
        """Close the connections. Idempotent; the next call opens them again."""
