"""The last reading as metrics. What a reading does not know has no point: a missing number is not 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from spanbridge.lag.reading import LagReading, LagState, QueueLag, TopicLag

GROUP = "messaging.consumer.group.name"
TOPIC = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
MEANS = "spanbridge.lag.means"

Points = Iterable[tuple[float, Mapping[str, str]]]


class Gauge(Protocol):
    """How a gauge is exported: ``read`` is called whenever metrics are read."""

    def __call__(self, name: str, read: Callable[[], Points], *, unit: str = "", description: str = "") -> None:
        """Export it."""


def register(gauge: Gauge, reading: Callable[[], LagReading | None]) -> None:
    """Export the lag. ``reading`` gives the last reading, or None."""

    def of(points: Callable[[LagReading], Points]) -> Callable[[], Points]:
        def read() -> Points:
            found = reading()
            return [] if found is None else list(points(found))

        return read

    gauge(
        "spanbridge.rocketmq.consumer.lag",
        of(_lags),
        unit="{message}",
        description="Messages that a consumer group is behind; spanbridge.lag.means says what that counts.",
    )
    gauge(
        "spanbridge.rocketmq.consumer.lag.age",
        of(_ages),
        unit="s",
        description="Age of the oldest message that a consumer group is behind; 0 when it is not behind.",
    )
    gauge(
        "spanbridge.rocketmq.consumer.status",
        of(_states),
        description="1 for the status that a consumer group has in a topic. Only some have a lag.",
    )
    gauge(
        "spanbridge.rocketmq.consumer.members",
        of(_members),
        unit="{consumer}",
        description="Consumers of a group that brokers know.",
    )
    gauge(
        "spanbridge.rocketmq.consumer.uncommitted",
        of(_uncommitted),
        unit="{message}",
        description="Messages in queues that a consumer group has never committed in.",
    )
    gauge(
        "spanbridge.rocketmq.consumer.dead_letters",
        of(lambda found: [(count, {GROUP: group}) for group, count in found.dead_letters.items()]),
        unit="{message}",
        description="Messages in a consumer group's dead-letter topic.",
    )


def _lags(reading: LagReading) -> Iterator[tuple[float, Mapping[str, str]]]:
    for row, queue in _queues(reading):
        if queue.lag is not None:
            yield queue.lag, {**_labels(row), PARTITION: str(queue.queue.queue), "broker": queue.queue.broker}


def _ages(reading: LagReading) -> Iterator[tuple[float, Mapping[str, str]]]:
    for row, queue in _queues(reading):
        age = 0.0 if queue.lag == 0 else queue.age
        if age is not None:
            yield age, {**_labels(row), PARTITION: str(queue.queue.queue), "broker": queue.queue.broker}


def _queues(reading: LagReading) -> Iterator[tuple[TopicLag, QueueLag]]:
    for row in reading.rows:
        if row.lag is not None:
            for queue in row.queues:
                yield row, queue


def _states(reading: LagReading) -> Iterator[tuple[float, Mapping[str, str]]]:
    for row in reading.rows:
        for state in LagState:
            yield int(row.state is state), {GROUP: row.group, TOPIC: row.topic, "status": str(state)}


def _members(reading: LagReading) -> Iterator[tuple[float, Mapping[str, str]]]:
    for row in reading.rows:
        if row.members is not None:
            yield row.members, {GROUP: row.group, TOPIC: row.topic}


def _uncommitted(reading: LagReading) -> Iterator[tuple[float, Mapping[str, str]]]:
    for row in reading.rows:
        if row.queues:
            yield row.uncommitted, {GROUP: row.group, TOPIC: row.topic}


def _labels(row: TopicLag) -> dict[str, str]:
    return {GROUP: row.group, TOPIC: row.topic, MEANS: str(row.means)}
