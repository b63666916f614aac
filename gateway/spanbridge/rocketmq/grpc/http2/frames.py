"""Frames (RFC 9113 section 4 and 6), and the messages of gRPC in them."""

from __future__ import annotations

import struct
from enum import IntEnum

from spanbridge.rocketmq.grpc.http2.errors import Http2Error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
"""Bytes before a frame's payload."""
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
_BEGINNING = 65_536
"""Bytes of a message that is too large: more than its properties take (32 KiB)."""

_PREFIX = 5
"""Bytes before a message: a flag and its length."""

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class FrameKind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Settings (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


def head(kind: int, flags: int, stream: int, size: int) -> bytes:
    """What comes before a payload of ``size`` bytes."""
    return struct.pack(">HBBBI", size >> 8, size & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return head(kind, flags, stream, len(payload)) + payload


def reset(stream: int, code: int) -> bytes:
    """An RST_STREAM frame."""
    return frame(FrameKind.RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(FrameKind.SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in values.items()))


def window_update(stream: int, size: int) -> bytes:
    """Let the peer send ``size`` bytes more."""
    return frame(FrameKind.WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


def read_settings(payload: bytes) -> dict[int, int]:
    """The values of a SETTINGS frame by their numbers.

    :raises Http2Error: its length is not a multiple of six.
    """
    if len(payload) % 6:
        raise Http2Error("a SETTINGS frame of a wrong size")
    return dict(struct.iter_unpack(">HI", payload))


def unpadded(kind: int, flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without padding and priority.

    :raises Http2Error: the padding is longer than the payload.
    """
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - (payload[0] if payload else 0)
    if kind == FrameKind.HEADERS and flags & PRIORITY:
        start += 5
    if start > end:
        raise Http2Error("padding that is longer than its frame")
    return payload[start:end]


class MessageBeginning(bytes):
    """The first bytes of a message that is larger than we take. The rest of it was passed over."""


class MessageReader:
    """Cuts the data of a stream into the messages of gRPC: a flag, a length, the message.

    Of one that is larger than ``limit`` bytes there is a :class:`MessageBeginning`; the stream goes on behind it.
    """

    __slots__ = ("_limit", "_missing", "_passing", "_rest")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._passing = 0
        """Bytes to come of what is passed over."""
        self._rest = bytearray()
        """What is here of a message that is not whole."""
        self._missing = 0
        """Bytes to come before it is worth a look."""

    @property
    def inside(self) -> bool:
        """Whether a message has begun, and not ended."""
        return bool(self._rest) or self._passing > 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes.

        :raises Http2Error: one is compressed, which we did not allow.
        """
        size = len(data) - _PREFIX
        begins = not self._rest and not self._passing
        if begins and 0 <= size <= self._limit and data[:_PREFIX] == size.to_bytes(_PREFIX, "big"):
            return [data[_PREFIX:]]  # one whole message in a frame, as the proxy sends them
        if self._passing:
            passed = min(self._passing, len(data))
            self._passing -= passed
            data = data[passed:]
        if self._rest:
            self._rest += data
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data, self._rest = bytes(self._rest), bytearray()
        return self._cut(data) if data else []

    def _cut(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        position, end = 0, len(data)
        missing = _PREFIX - end
        while end - position >= _PREFIX:
            size = int.from_bytes(data[position + 1 : position + _PREFIX], "big")
            if data[position]:
                raise Http2Error("a compressed message, which was not asked for")
            taken = size if size <= self._limit else min(self._limit, _BEGINNING)
            start = position + _PREFIX
            missing = taken - (end - start)
            if missing > 0:
                break
            message = data[start : start + taken]
            messages.append(message if taken == size else MessageBeginning(message))
            position = start + size
            missing = _PREFIX - (end - position)
        if position < end:
            self._rest, self._missing = bytearray(data[position:]), missing
        self._passing += max(0, position - end)
        return messages
