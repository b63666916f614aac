"""What comes on an HTTP/2 connection, cut into frames."""

from __future__ import annotations

import struct
from collections.abc import Callable

from spanbridge.rocketmq.grpc.http2.errors import Http2Error
from spanbridge.rocketmq.grpc.http2.frames import END_HEADERS, HEAD, FrameKind, unpadded

LARGEST_FRAME = 256 * 1024
"""Bytes of a frame's payload that we take."""
_LONGEST_HEADERS = 64 * 1024
_STREAM = (1 << 31) - 1
_HEAD = struct.Struct(">IBI")
"""Length (three bytes) and type, flags, stream."""

Handler = Callable[[int, int, bytes], None]
"""Takes stream, flags and payload of a frame. May raise :class:`Http2Error`."""


class FrameReader:
    """Hands frames to the handlers of their kinds; others are ignored (RFC 9113 section 4.1).

    A HEADERS frame is handed over once its CONTINUATION frames are here, without padding and with the whole block.
    """

    def __init__(self, handlers: dict[int, Handler]) -> None:
        self._handlers = {
            **handlers, FrameKind.HEADERS: self._on_headers, FrameKind.CONTINUATION: self._on_continuation
        }  # fmt: skip
        self._take_headers = handlers[FrameKind.HEADERS]
        self.greeted = False
        """Whether the peer has begun to speak HTTP/2."""
        self._rest = b""
        self._headers: tuple[int, int, bytes] | None = None
        """Stream, flags and block of a HEADERS frame that goes on in CONTINUATION frames."""

    def feed(self, data: bytes) -> None:
        """Hand over the frames that ``data`` completes.

        :raises Http2Error: the peer does not keep to the protocol.
        """
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        while end - position >= HEAD:
            word, flags, stream = _HEAD.unpack_from(data, position)
            size, kind = word >> 8, word & 0xFF
            if not self.greeted:
                if kind != FrameKind.SETTINGS or data[position : position + 5] == b"HTTP/":
                    raise Http2Error("it does not speak gRPC. Is this the port of RocketMQ's proxy?")
                self.greeted = True
            if size > LARGEST_FRAME:
                raise Http2Error(f"a frame of {size} bytes")
            if end - position - HEAD < size:
                break
            start = position + HEAD
            position = start + size
            payload = data[start:position]
            if self._headers is not None and kind != FrameKind.CONTINUATION:
                raise Http2Error("a header block that is interrupted")
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(stream & _STREAM, flags, payload)
        self._rest = data[position:]

    def _on_headers(self, stream: int, flags: int, payload: bytes) -> None:
        block = unpadded(FrameKind.HEADERS, flags, payload)
        if flags & END_HEADERS:
            self._take_headers(stream, flags, block)
        else:
            self._headers = stream, flags, block

    def _on_continuation(self, stream: int, flags: int, payload: bytes) -> None:
        if self._headers is None or self._headers[0] != stream:
            raise Http2Error("a header block that goes on without a start")
        _, first, block = self._headers
        block += payload
        if len(block) > _LONGEST_HEADERS:
            raise Http2Error("a header block without an end")
        self._headers = stream, first, block
        if flags & END_HEADERS:
            self._headers = None
            self._take_headers(stream, first, block)
