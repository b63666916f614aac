"""The benchmark's payload, 128 bytes unless told otherwise: enough in it to find a message again and to time it.

24 bytes of big-endian head (run, phase, sequence number, Unix time of sending in nanoseconds), the rest is filler.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import cache
from typing import NamedTuple

SIZE = 128
_HEAD = struct.Struct(">IBxxxQQ")
pack_head = _HEAD.pack
"""The head of a payload from run, phase, sequence number and Unix time in nanoseconds."""


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


@cache
def filler(size: int = SIZE) -> bytes:
    """What follows the head in a payload of ``size`` bytes."""
    return (bytes(range(256)) * (size // 256 + 1))[: size - _HEAD.size]


def pack(run: int, phase: int, seq: int, sent_ns: int, size: int = SIZE) -> bytes:
    """Build a payload of ``size`` bytes, at least 24."""
    return _HEAD.pack(run, phase, seq, sent_ns) + filler(size)


def unpack(payload: bytes, size: int = SIZE) -> Stamp:
    """Read the head of a payload of ``size`` bytes.

    :raises ValueError: the payload is not one of ours.
    """
    if len(payload) != size or not payload.endswith(filler(size)):
        raise ValueError("not a benchmark payload")
    return Stamp(*_HEAD.unpack_from(payload))
