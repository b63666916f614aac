"""The benchmark's 128-byte payload: enough in it to find a message again and to time it.

24 bytes of big-endian head (run, phase, sequence number, Unix time of sending in nanoseconds), the rest is filler.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

SIZE = 128
_HEAD = struct.Struct(">IBxxxQQ")
_FILLER = bytes(range(SIZE - _HEAD.size))


class Phase(IntEnum):
    """What a message was sent for."""

    PROBE = 0
    """Sent until the first one arrives: tells that the bridge is subscribed. Not counted."""
    LOAD = 1
    """Sent as fast as the bridge takes them."""
    PACED = 2
    """Sent at a fixed moderate rate, to measure latency."""


class Stamp(NamedTuple):
    """The head of a payload. ``sent_ns`` is Unix time in nanoseconds."""

    run: int
    phase: int
    seq: int
    sent_ns: int


def pack(run: int, phase: int, seq: int, sent_ns: int) -> bytes:
    """Build a payload of ``SIZE`` bytes."""
    return _HEAD.pack(run, phase, seq, sent_ns) + _FILLER


def unpack(payload: bytes) -> Stamp:
    """Read the head of a payload.

    :raises ValueError: the payload is not one of ours.
    """
    if len(payload) != SIZE or payload[_HEAD.size :] != _FILLER:
        raise ValueError("not a benchmark payload")
    return Stamp(*_HEAD.unpack_from(payload))
