"""Group commit: at once when idle, full when busy, in order always."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.ack import InFlight
from spanbridge.core.batch import BatchLimits, Lane
from spanbridge.core.message import Publish

LIMITS = BatchLimits(max_messages=4, max_bytes=100, concurrency=2)


def entry(size: int = 10) -> InFlight:
    return InFlight(Publish("t", b""), None, "t", None, b"x" * size)


def test_an_idle_lane_sends_what_it_has_at_once() -> None:
    lane = Lane("t", -1, LIMITS)
    assert lane.take() is None
    only = entry()
    lane.add(only)
    assert lane.take() == [only]
    assert lane.take() is None


def test_a_busy_lane_gathers_until_its_request_returns() -> None:
    lane = Lane("t", -1, LIMITS)
    lane.add(entry())
    assert lane.take()
    late = [entry(), entry()]
    for item in late:
        lane.add(item)
    assert lane.take() is None
    lane.done()
    assert lane.take() == late


def test_an_unordered_lane_sends_a_full_batch_beside_another_but_an_ordered_one_does_not() -> None:
    for key, second in ((-1, 4), (0, None)):
        lane = Lane("t", key, LIMITS)
        lane.add(entry())
        assert lane.take()
        for _ in range(5):
            lane.add(entry())
        taken = lane.take()
        assert (len(taken) if taken else None) == second
        assert lane.take() is None, "concurrency is bounded"


def test_a_batch_is_full_by_its_bytes_as_well() -> None:
    lane = Lane("t", -1, LIMITS)
    lane.add(entry())
    assert lane.take()
    lane.add(entry(99))
    assert lane.take() is None
    lane.add(entry(1))
    taken = lane.take()
    assert taken is not None
    assert len(taken) == 2


def test_a_message_larger_than_the_limit_goes_alone() -> None:
    lane = Lane("t", -1, LIMITS)
    huge = entry(1000)
    lane.add(huge)
    lane.add(entry())
    assert lane.take() == [huge]


@given(st.lists(st.integers(1, 150), min_size=1, max_size=40), st.integers(-1, 3))
def test_batches_hold_the_limits_keep_order_and_lose_nothing(sizes: list[int], key: int) -> None:
    lane = Lane("t", key, LIMITS)
    entries = [entry(size) for size in sizes]
    for item in entries:
        lane.add(item)
    taken: list[InFlight] = []
    while batch := lane.take():
        assert len(batch) <= 4
        assert len(batch) == 1 or sum(item.size for item in batch) <= 100
        taken += batch
        lane.done()
    assert taken == entries
    assert lane.pending_bytes == 0
