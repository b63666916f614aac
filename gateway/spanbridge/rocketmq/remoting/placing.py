"""The queue of a message group, as RocketMQ's gRPC proxy chooses it: producers of both protocols agree. No I/O.

The proxy takes Guava's ``Hashing.consistentHash(group.hashCode(), queues)`` over the topic's writable queues, sorted by
broker name and number (``SendMessageActivity.SendMessageQueueSelector``, ``MessageQueueSelector.buildWrite``). It is
the "jump" consistent hash (J. Lamping, E. Veach, 2014). Where a queue is added, only groups that move to it change
theirs.
"""

from __future__ import annotations

from typing import Final

_64_BITS: Final = 2**64 - 1
_FACTOR: Final = 2862933555777941757


def java_hash(text: str) -> int:
    """``String.hashCode``: signed, 32 bits, over UTF-16 code units."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for at in range(0, len(units), 2):
        value = value * 31 + (units[at] << 8 | units[at + 1]) & 0xFFFF_FFFF
    return value - 2**32 if value >= 2**31 else value


def consistent_hash(number: int, buckets: int) -> int:
    """The bucket of ``number``, 0 to ``buckets`` - 1 (Guava's ``LinearCongruentialGenerator`` draws)."""
    state, candidate = number & _64_BITS, 0
    while True:
        state = (_FACTOR * state + 1) & _64_BITS
        drawn = ((state >> 33) + 1) / 2**31
        following = int((candidate + 1) / drawn)
        if following >= buckets:
            return candidate
        candidate = following
