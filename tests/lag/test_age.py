"""When a message was stored, found out by offsets alone."""

from __future__ import annotations

import bisect

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.lag.age import MOST_REQUESTS, stored_at

NOW = 1_800_000_000_000
WEEK = 7 * 86_400_000


class Queue:
    """A queue by its messages' store times. ``last`` answers with the last message where all are older."""

    def __init__(self, stored: list[int], *, last: bool = False) -> None:
        self.stored = sorted(stored)
        self.last = last
        self.asked = 0

    async def offset_at(self, milliseconds: int) -> int:
        self.asked += 1
        at = bisect.bisect_left(self.stored, milliseconds)
        return min(at, len(self.stored) - 1) if self.last else at


def search(queue: Queue, offset: int, not_before: int = 0) -> int | None:
    return anyio.run(stored_at, queue.offset_at, offset, NOW, not_before)


@given(st.lists(st.integers(0, WEEK), min_size=1, max_size=20), st.data())
def test_it_is_found_to_a_tenth_of_its_age(ages: list[int], data: st.DataObject) -> None:
    queue = Queue([NOW - 1 - age for age in ages])
    offset = data.draw(st.integers(0, len(ages) - 1))
    found = search(queue, offset)
    assert found is not None
    age = NOW - queue.stored[offset]
    assert abs((NOW - found) - age) <= max(500, age * 0.1)
    assert queue.asked <= MOST_REQUESTS


@given(st.integers(1000, WEEK), st.integers(0, WEEK))
def test_a_known_bound_is_never_passed(age: int, more: int) -> None:
    queue = Queue([NOW - age])
    found = search(queue, 0, not_before=NOW - age - more)
    assert found is not None
    assert found >= NOW - age - more
    assert abs((NOW - found) - age) <= max(500, age * 0.1)


def test_a_broker_whose_clock_is_ahead_makes_it_new() -> None:
    assert search(Queue([NOW + 5000]), 0) == NOW


def test_a_store_that_gives_the_last_message_instead_says_nothing_of_it() -> None:
    assert search(Queue([NOW - 9000, NOW - 7000], last=True), 1) is None
    assert search(Queue([NOW - 9000, NOW - 7000], last=True), 0) == pytest.approx(NOW - 9000, abs=900)


def test_older_than_brokers_keep_messages() -> None:
    queue = Queue([0])
    found = search(queue, 0)
    assert found is not None
    assert NOW - found > 30 * 86_400_000
    assert queue.asked <= MOST_REQUESTS
