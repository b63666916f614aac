"""How queues are shared out, and how far a group is in one: without brokers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spanbridge.rocketmq.remoting.progress import QueueProgress
from spanbridge.rocketmq.remoting.pulling import ReadQueue, share

QUEUE = ReadQueue("t", "b", 0)


def shares(queues: int, members: int) -> list[list[int]]:
    names = [f"m{number:03}" for number in range(members)]
    all_queues = [ReadQueue("t", "b", number) for number in range(queues)]
    return [[one.queue for one in share(all_queues, names, name)] for name in names]


def test_queues_are_shared_as_java_clients_share_them() -> None:
    """``AllocateMessageQueueAveragelyTest``"""
    assert shares(10, 4) == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert shares(4, 4) == [[0], [1], [2], [3]]
    assert shares(2, 3) == [[0], [1], []]
    assert list(share([QUEUE], ["m"], "nobody")) == []


@given(st.integers(0, 40), st.integers(1, 40))
def test_every_queue_has_one_reader(queues: int, members: int) -> None:
    assert sorted(queue for share in shares(queues, members) for queue in share) == list(range(queues))


def progress(offset: int = 0) -> QueueProgress:
    return QueueProgress(QUEUE, offset, lambda: None)


def test_only_what_is_handled_from_the_beginning_on_is_committed() -> None:
    one = progress(10)
    one.took([10, 11, 13], 14)
    assert (one.offset, one.unfinished, one.span) == (10, 3, 4)
    one.done(11)
    one.done(11)  # a second time changes nothing
    assert one.offset == 10
    one.done(10)
    assert one.offset == 13
    one.done(13)
    assert (one.offset, one.unfinished, one.done_since) == (14, 0, 3)


@given(st.data())
def test_no_message_is_committed_before_it_is_handled(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1)))
    one = progress()
    one.took(offsets, 61)
    waiting = set(offsets)
    for offset in data.draw(st.permutations(offsets)):
        assert one.offset == min(waiting)
        one.done(offset)
        waiting.discard(offset)
    assert one.offset == 61


def test_a_queue_that_goes_on_elsewhere_forgets_what_was_open() -> None:
    one = progress()
    one.took([0, 1], 2)
    one.moved(50)
    assert (one.offset, one.next_offset) == (50, 50)
    one.done(1)
    assert one.offset == 50
