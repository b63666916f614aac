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


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


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

    __slots__ = ("_limit", "_passing", "_rest")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._passing = 0
        """Bytes to come of what is passed over."""
        self._rest = b""

    @property
    def inside(self) -> bool:
        """Whether a message has begun, and not ended."""
        return bool(self._rest) or self._passing > 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes.

        :raises Http2Error: one is compressed, which we did not allow.
        """
        if self._passing:
            passed = min(self._passing, len(data))
            self._passing -= passed
            data = data[passed:]
        if self._rest:
            data = self._rest + data
        messages: list[bytes] = []
        position, end = 0, len(data)
        while end - position >= 5:
            size = int.from_bytes(data[position + 1 : position + 5], "big")
            if data[position]:
                raise Http2Error("a compressed message, which was not asked for")
            taken = size if size <= self._limit else min(self._limit, _BEGINNING)
            if end - position - 5 < taken:
                break
            message = data[position + 5 : position + 5 + taken]
            messages.append(message if taken == size else MessageBeginning(message))
            position += 5 + size
        self._passing += max(0, position - end)
        self._rest = data[position:]
        return messages
