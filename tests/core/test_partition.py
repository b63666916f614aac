"""Group commit: at once when idle, full when busy, in order always."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.core.partition import BatchLimits, Partition

LIMITS = BatchLimits(max_messages=4, max_bytes=100, concurrency=2)


class Entry:
    def __init__(self, size: int = 10) -> None:
        self.encoded = b"x" * size


def partition(key: int = -1) -> Partition[Entry]:
    return Partition("t", key, LIMITS)


def test_an_idle_partition_sends_what_it_has_at_once() -> None:
    idle = partition()
    assert idle.take() is None
    only = Entry()
    idle.add(only)
    assert idle.take() == [only]
    assert idle.take() is None


def test_a_busy_partition_gathers_until_its_request_returns() -> None:
    busy = partition()
    busy.add(Entry())
    assert busy.take()
    late = [Entry(), Entry()]
    for item in late:
        busy.add(item)
    assert busy.take() is None
    busy.done()
    assert busy.take() == late


def test_an_unordered_partition_sends_a_full_batch_beside_another_but_an_ordered_one_does_not() -> None:
    for key, second in ((-1, 4), (0, None)):
        busy = partition(key)
        busy.add(Entry())
        assert busy.take()
        for _ in range(9):
            busy.add(Entry())
        taken = busy.take()
        assert (len(taken) if taken else None) == second
        assert busy.take() is None, "concurrency is bounded"


def test_what_is_left_behind_a_full_batch_waits_for_its_turn() -> None:
    busy = partition()
    for _ in range(6):
        busy.add(Entry())
    assert len(busy.take() or ()) == 4
    assert (len(busy.pending), busy.pending_bytes) == (2, 20)
    assert busy.take() is None
    busy.add(Entry())
    assert busy.take() is None
    busy.add(Entry())
    assert len(busy.take() or ()) == 4


def test_a_batch_is_full_by_its_bytes_as_well() -> None:
    busy = partition()
    busy.add(Entry())
    assert busy.take()
    busy.add(Entry(99))
    assert busy.take() is None
    busy.add(Entry(1))
    assert [len(one.encoded) for one in busy.take() or ()] == [99, 1]


def test_a_message_larger_than_the_limit_goes_alone() -> None:
    idle = partition()
    huge, small = Entry(1000), Entry()
    idle.add(huge)
    idle.add(small)
    assert idle.take() == [huge]
    assert (idle.pending, idle.pending_bytes) == ([small], 10)


@given(st.lists(st.integers(1, 150), min_size=1, max_size=40), st.integers(-1, 3))
def test_batches_hold_the_limits_keep_order_and_lose_nothing(sizes: list[int], key: int) -> None:
    filled = partition(key)
    entries = [Entry(size) for size in sizes]
    for item in entries:
        filled.add(item)
    taken: list[Entry] = []
    while batch := filled.take():
        assert len(batch) <= 4
        assert len(batch) == 1 or sum(len(item.encoded) for item in batch) <= 100
        taken += batch
        filled.done()
    assert taken == entries
    assert (filled.pending_bytes, filled.in_flight) == (0, 0)


@given(st.lists(st.one_of(st.integers(1, 150), st.sampled_from(["take", "done"])), max_size=80), st.integers(-1, 1))
def test_in_any_course_of_events_order_concurrency_and_the_count_of_bytes_hold(
    course: list[int | str], key: int
) -> None:
    used = partition(key)
    added: list[Entry] = []
    taken: list[Entry] = []
    under_way = 0
    for step in course:
        if isinstance(step, int):
            added.append(Entry(step))
            used.add(added[-1])
        elif step == "done":
            if under_way:
                used.done()
                under_way -= 1
        elif batch := used.take():
            taken += batch
            under_way += 1
        assert under_way <= (2 if key < 0 else 1)
        assert taken + used.pending == added
        assert used.pending_bytes == sum(len(item.encoded) for item in used.pending)
