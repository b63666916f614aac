"""Delay levels, by which brokers before 5.0 deliver later. No I/O.

A level is one of 18 delays (``messageDelayLevel`` of the broker; these are its defaults), counted from when the broker
stores the message. A message gets the first that does not end before its delivery time.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from spanbridge.core.errors import SinkRejected

DELIVERY_TIME: Final = "TIMER_DELIVER_MS"
_DELAY: Final = "DELAY"
_SECONDS: Final = (1, 5, 10, 30, *(60 * minutes for minutes in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 60, 120)))


def delay_level(wait_ms: int) -> int | None:
    """The level for a wait in milliseconds: 0 for none, None where the longest is too short."""
    if wait_ms <= 0:
        return 0
    at = bisect_left(_SECONDS, wait_ms / 1000)
    return at + 1 if at < len(_SECONDS) else None


def is_timed(properties: str) -> bool:
    """Whether a message's properties hold a delivery time."""
    return f"\x02{DELIVERY_TIME}\x01" in f"\x02{properties}"


def by_level(properties: str, now_ms: int) -> str:
    """The properties with a delay level in place of the delivery time, or with none where that has passed.

    :raises SinkRejected: no level is that long.
    """
    items = properties.split("\x02")
    place = next(index for index, item in enumerate(items) if item.startswith(f"{DELIVERY_TIME}\x01"))
    due = int(items[place].partition("\x01")[2])
    level = delay_level(due - now_ms)
    if level is None:
        text = f"a delivery time {(due - now_ms) / 3_600_000:.1f} hours ahead: the longest delay level has 2"
        raise SinkRejected(text, reason="illegal_delivery_time")
    items[place : place + 1] = [f"{_DELAY}\x01{level}"] if level else []
    return "\x02".join(items)
