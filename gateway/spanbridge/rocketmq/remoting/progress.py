"""How far a group is in one queue that it pulls. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from spanbridge.rocketmq.remoting.pulling import ReadQueue


class QueueProgress:
    """``next_offset`` is where to pull on. ``committed`` is what the broker knows, -1 until it was told.

    Only what lies before the first message in our hands may be committed: the broker keeps one number to a queue.
    ``told`` is called when a message was handled.
    """

    __slots__ = ("_open", "_told", "committed", "done_since", "gone", "next_offset", "queue", "turn")

    def __init__(self, queue: ReadQueue, offset: int, told: Callable[[], None]) -> None:
        self.queue = queue
        self._told = told
        self.next_offset = offset
        self.committed = -1
        self.done_since = 0
        """Messages that were handled since the last commit."""
        self.gone = False
        """Whether the queue is another's now."""
        self.turn = 0
        """How often the queue has gone on elsewhere: its offsets may stand for other messages since."""
        self._open: dict[int, None] = {}

    def took(self, offsets: Iterable[int], next_offset: int) -> None:
        """Messages are in our hands now."""
        self._open.update(dict.fromkeys(offsets))
        self.next_offset = next_offset

    def moved(self, offset: int) -> None:
        """The queue goes on elsewhere: its messages were deleted, or the group's offset was reset."""
        self._open.clear()
        self.next_offset = offset
        self.turn += 1

    def done(self, offset: int, turn: int = 0) -> None:
        """A message was handled that came in that turn."""
        if turn == self.turn and offset in self._open:
            del self._open[offset]
            self.done_since += 1
            self._told()

    @property
    def unfinished(self) -> int:
        """Messages in our hands."""
        return len(self._open)

    @property
    def span(self) -> int:
        """How many messages would come again if we ended now."""
        return self.next_offset - self.offset

    @property
    def offset(self) -> int:
        """All messages before this one are handled. Offsets of a queue come in their order, and so they stay."""
        return next(iter(self._open), self.next_offset)


class PullHandle(NamedTuple):
    """What answers a message that was pulled. ``turn`` is its queue's when it came."""

    progress: QueueProgress
    offset: int
    physical_offset: int
    turn: int
