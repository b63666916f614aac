"""What goes out on an HTTP/2 connection: as much as the peer takes now, the rest when it takes more."""

from __future__ import annotations

import asyncio

from spanbridge.rocketmq.grpc.http2.call import GrpcCall
from spanbridge.rocketmq.grpc.http2.errors import Http2Error
from spanbridge.rocketmq.grpc.http2.frames import DEFAULT_FRAME, DEFAULT_WINDOW, END_STREAM, FrameKind, head

_PIECE = 64 * 1024
"""Bytes of requests in one write."""
_MOST_UNREAD = 256 * 1024
"""Bytes of our answers to its frames that a peer may leave unread."""


class FrameWriter:
    """Writes frames to a transport. Requests keep to the peer's windows and to what the socket takes."""

    def __init__(self) -> None:
        self.window = DEFAULT_WINDOW
        """Bytes that the peer takes of all calls now."""
        self.frame = DEFAULT_FRAME
        """Bytes that it takes in one frame."""
        self.full = False
        """Whether the socket is full."""
        self._unread = 0
        self._transport: asyncio.Transport | None = None
        self._blocked: dict[int, GrpcCall] = {}
        """Calls whose messages are not wholly written."""

    def connected(self, transport: asyncio.Transport) -> None:
        """Write to this one."""
        self._transport = transport

    def answer(self, data: bytes) -> None:
        """Write what no window holds back."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if self.full:
                self._unread += len(data)

    def check(self) -> None:
        """See that answers do not gather.

        :raises Http2Error: the peer sends what is to be answered, and leaves the answers unread.
        """
        if self._unread > _MOST_UNREAD:
            raise Http2Error("it sends, and does not read our answers")

    def push(self, call: GrpcCall, headers: bytes = b"") -> None:
        """Write the headers, and what the peer takes now of the call's messages."""
        assert self._transport is not None
        outgoing = call.outgoing
        written: list[bytes | memoryview] = []
        piece = 0
        if headers:
            written += (headers,)
        while outgoing.size and not self.full:
            size = min(outgoing.size, self.window, call.window, self.frame)
            if size <= 0:
                break
            self.window -= size
            call.window -= size
            flags = END_STREAM if outgoing.whole and size == outgoing.size else 0
            written.append(head(FrameKind.DATA, flags, call.stream, size))
            written += outgoing.take(size)
            piece += size
            if piece >= _PIECE:
                self._transport.write(b"".join(written))
                written, piece = [], 0
        if written:
            self._transport.write(b"".join(written))
        if outgoing.size:
            self._blocked[call.stream] = call
        else:
            self._blocked.pop(call.stream, None)

    def go_on(self) -> None:
        """Write what was held back, the oldest first."""
        for call in list(self._blocked.values()):
            if self.full or self.window <= 0:
                return
            self.push(call)

    def drained(self) -> None:
        """The socket takes more."""
        self.full, self._unread = False, 0
        self.go_on()

    def stop(self, call: GrpcCall) -> None:
        """Write nothing more of a call."""
        call.outgoing.clear()
        self._blocked.pop(call.stream, None)
