"""What became of one downlink's messages, for /status."""

from __future__ import annotations

from collections import Counter


class DownlinkTally:
    """Counts of one downlink, by reason where there is one. ``last_ns`` is Unix time of the last message, 0 for never.

    A message that is nacked comes again: ``received`` then counts it again.
    """

    __slots__ = ("dropped", "last_ns", "nacked", "published", "received", "rejected")

    def __init__(self) -> None:
        self.received = 0
        self.published = 0
        self.rejected: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.nacked: Counter[str] = Counter()
        self.last_ns = 0
