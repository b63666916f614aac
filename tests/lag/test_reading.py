"""The formulas: what is behind, what is not known, what is gone."""

from __future__ import annotations

import pytest

from spanbridge.lag import LagState, Meaning, QueueLag, TopicLag
from spanbridge.ports import TopicQueue

QUEUE = TopicQueue("t", "broker-a", 0)


@pytest.mark.parametrize(
    ("most", "committed", "least", "lag", "expired"),
    [
        pytest.param(10, 4, 0, 6, 0, id="behind"),
        pytest.param(10, 10, None, 0, 0, id="not behind"),
        pytest.param(0, None, None, 0, 0, id="nothing was ever sent"),
        pytest.param(10, None, 0, None, 0, id="never committed is not 0"),
        pytest.param(10, 4, 7, 3, 3, id="deleted before it was delivered"),
        pytest.param(10, 4, 10, 0, 6, id="all deleted"),
        pytest.param(3, 90, None, 0, 0, id="ahead of a topic that was made again"),
    ],
)
def test_a_queue(most: int, committed: int | None, least: int | None, lag: int | None, expired: int) -> None:
    found = QueueLag(QUEUE, most, committed, least)
    assert (found.lag, found.expired) == (lag, expired)


def row(state: LagState, *queues: QueueLag) -> TopicLag:
    return TopicLag(group="g", topic="t", state=state, means=Meaning.NOT_DELIVERED, queues=queues)


def test_a_topic_is_the_sum_of_its_queues_and_as_old_as_the_oldest() -> None:
    found = row(
        LagState.CONSUMED, QueueLag(QUEUE, 10, 4, 0, 3.0), QueueLag(QUEUE, 10, 9, 0, 8.0), QueueLag(QUEUE, 5, 5)
    )
    assert (found.lag, found.age, found.uncommitted) == (7, 8.0, 0)


def test_queues_never_committed_in_are_told_apart() -> None:
    found = row(LagState.CONSUMED, QueueLag(QUEUE, 10, 4, 0), QueueLag(QUEUE, 20, None, 5))
    assert (found.lag, found.uncommitted) == (6, 15)


@pytest.mark.parametrize(
    "state", [state for state in LagState if state not in (LagState.CONSUMED, LagState.NO_CONSUMER)]
)
def test_other_states_have_no_number(state: LagState) -> None:
    assert row(state, QueueLag(QUEUE, 10, None, 0)).lag is None
