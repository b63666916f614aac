"""Consumer lag: how far consumer groups are behind, per queue, and since when. docs/lag.md says what that means."""

from __future__ import annotations

from spanbridge.lag.options import LagOptions, WatchedGroup
from spanbridge.lag.reader import LagReader
from spanbridge.lag.reading import LagReading, LagState, Meaning, QueueLag, TopicLag
from spanbridge.lag.service import LagService

__all__ = [
    "LagOptions",
    "LagReader",
    "LagReading",
    "LagService",
    "LagState",
    "Meaning",
    "QueueLag",
    "TopicLag",
    "WatchedGroup",
]
