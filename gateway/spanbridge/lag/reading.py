"""What one reading found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from spanbridge.ports import TopicQueue


class Meaning(StrEnum):
    """What a group's committed offset stands for, and so what its lag counts."""

    NOT_DELIVERED = "not_delivered"
    """POP, not in order: the broker commits what it has handed out. Messages that a consumer holds are not counted."""
    NOT_ACKNOWLEDGED = "not_acknowledged"
    """In order, or by the older protocol: what is committed is done. Messages that a consumer holds are counted."""
    UNKNOWN = "unknown"
    """The broker did not say whether the group receives in order."""


class LagState(StrEnum):
    """How a group stands to a topic. Only the first two have a lag."""

    CONSUMED = "consumed"
    NO_CONSUMER = "no_consumer"
    """It has committed, and no broker knows a consumer of it now. In cluster mode brokers know none of gRPC."""
    NEVER_COMMITTED = "never_committed"
    NO_GROUP = "no_group"
    NO_TOPIC = "no_topic"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class QueueLag:
    """One queue. ``committed`` is None where the group has never committed in it.

    ``min_offset`` is known where there is something to be delivered. ``age`` is that of the oldest such message, in
    seconds; None where there is none, or the broker did not say.
    """

    queue: TopicQueue
    max_offset: int
    committed: int | None
    min_offset: int | None = None
    age: float | None = None

    @property
    def first(self) -> int | None:
        """The offset of the oldest message that is behind: what the queue does not hold any more is not waited for."""
        return None if self.committed is None else max(self.committed, self.min_offset or 0)

    @property
    def lag(self) -> int | None:
        """Messages behind; None where the group never committed and the queue has had messages.

        A group that is ahead of its queue (its topic was deleted and made again) is not behind.
        """
        if self.first is None:
            return None if self.max_offset else 0
        return max(0, self.max_offset - self.first)

    @property
    def expired(self) -> int:
        """Messages that the broker has deleted before the group got them."""
        if self.committed is None or self.min_offset is None:
            return 0
        return max(0, self.min_offset - self.committed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLag:
    """One group in one topic. ``members`` are the consumers that brokers know, None where they do not say.

    ``retry``: the topic is where the group's failed messages wait to be delivered again. ``error`` is one line.
    """

    group: str
    topic: str
    state: LagState
    means: Meaning
    members: int | None = None
    queues: tuple[QueueLag, ...] = ()
    retry: bool = False
    error: str | None = None

    @property
    def lag(self) -> int | None:
        """Messages behind in all queues that it has committed in; None where it has in none."""
        if self.state not in (LagState.CONSUMED, LagState.NO_CONSUMER):
            return None
        return sum(queue.lag or 0 for queue in self.queues)

    @property
    def age(self) -> float | None:
        """The age of the oldest message behind, in seconds."""
        return max((queue.age for queue in self.queues if queue.age is not None), default=None)

    @property
    def expired(self) -> int:
        """Messages deleted before the group got them."""
        return sum(queue.expired for queue in self.queues)

    @property
    def uncommitted(self) -> int:
        """Messages in queues that the group has never committed in. Whether it will get them is not known."""
        return sum(queue.max_offset - (queue.min_offset or 0) for queue in self.queues if queue.committed is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LagReading:
    """All groups at one moment. ``dead_letters`` are the messages that each group's dead-letter topic holds.

    ``at_ns`` is Unix time, ``took`` seconds. ``errors`` are what was not answered: one line, and its reason.
    """

    at_ns: int
    took: float
    requests: int
    rows: tuple[TopicLag, ...]
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()
