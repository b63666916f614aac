"""How each partition stands with the spool: what of it waits for the disk, lies there, and is on its way out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from spanbridge.core.partition import Partition
from spanbridge.uplink.recipe import Outgoing

PROBE = 32
"""Messages of a partition that fails which are out of the spool at a time, to see whether it works again."""

Counts = dict[Partition[Outgoing], int]


class Standing:
    """Numbers of messages by partition. A partition that the spool holds messages of is *behind*: its new messages go
    to the spool as well."""

    def __init__(self) -> None:
        self.expected: Counts = {}
        """Messages on their way to the disk."""
        self.behind: Counts = {}
        """Messages on the disk that were not given yet, as far as that is known."""
        self.out: Counts = {}
        """Messages that were given and are not done."""
        self.stopped: dict[Partition[Outgoing], int] = {}
        """Partitions that fail, and since when they do (monotonic, ns)."""
        self.unseen = False
        """Whether the spool may hold messages that nobody knows the partition of."""

    @property
    def idle(self) -> bool:
        """Whether the spool holds, or is to hold, nothing of any partition, and none fails."""
        return not (self.unseen or self.behind or self.expected or self.stopped)

    def holds(self, partition: Partition[Outgoing]) -> bool:
        """Whether messages of ``partition`` are to go to the spool, since others of it are there."""
        return self.unseen or partition in self.behind or partition in self.stopped or partition in self.expected

    def blocked(self, partition: Partition[Outgoing]) -> bool:
        """Whether no more of it may be given now: it fails, and some of it are out to see when it works again."""
        return partition in self.stopped and self.out.get(partition, 0) >= PROBE

    def over(self) -> list[Partition[Outgoing]]:
        """Partitions that failed and have nothing left, in the spool or here: it expired, or was rejected."""
        return [
            one
            for one in self.stopped
            if not (one in self.expected or one in self.behind or one in self.out or one.pending or one.in_flight)
        ]

    def lets_go(self, partition: Partition[Outgoing]) -> bool:
        """Forget that it fails, and what is expected of it, if nothing of it is in the spool; False: something is."""
        if self.unseen or partition in self.behind or partition in self.out:
            return False
        self.stopped.pop(partition, None)
        self.expected.pop(partition, None)
        return True

    def appended(self, partitions: Iterable[Partition[Outgoing]]) -> None:
        """The disk has what was expected of these."""
        for partition, count in Counter(partitions).items():
            add(self.expected, partition, -count)
            add(self.behind, partition, count)

    def given(self, counts: Counts) -> None:
        """So many of each are on their way."""
        for partition, count in counts.items():
            add(self.out, partition, count)
            if partition in self.behind:
                add(self.behind, partition, -count)


def add(counts: Counts, partition: Partition[Outgoing], count: int) -> None:
    """Change a number. What is zero is not in there."""
    left = counts.get(partition, 0) + count
    if left > 0:
        counts[partition] = left
    else:
        counts.pop(partition, None)
