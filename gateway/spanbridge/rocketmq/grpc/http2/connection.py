"""One HTTP/2 connection to a gRPC server, on the caller's event loop."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

from grpc import StatusCode

from spanbridge.rocketmq.grpc.http2 import hpack
from spanbridge.rocketmq.grpc.http2.call import CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.errors import Http2Error
from spanbridge.rocketmq.grpc.http2.frames import (
    ACK,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    FrameKind,
    Setting,
    frame,
    read_settings,
    settings,
    unpadded,
    window_update,
)
from spanbridge.rocketmq.grpc.http2.reader import LARGEST_FRAME, FrameReader

_WINDOW = 4 * 1024 * 1024
"""Bytes that one call's answer may be ahead of our reading; the connection's is four times that."""
_MANY = 16
"""Messages of one call in one read from which on the next read waits for more of them (docs/adr/0155)."""
_READ_PAUSE = 0.002
"""Seconds that it waits."""
_MOST_HEADERS = 256
_LAST_STREAM = (1 << 31) - 1
_CANCEL = 0x8
_REFUSED = 0x7
_CODES = {_REFUSED: StatusCode.UNAVAILABLE, _CANCEL: StatusCode.CANCELLED}


class Http2Connection(asyncio.Protocol):
    """Calls on one connection. ``closed`` is done once it is; its result says why, None when we closed it."""

    def __init__(self, authority: str, scheme: str) -> None:
        self.closed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.leaving = False
        """Whether it takes no more calls: the peer said goodbye, or its numbers are used up."""
        self._fixed = (
            (":method", "POST"), (":scheme", scheme), (":authority", authority), ("te", "trailers"),
            ("content-type", "application/grpc"),
        )  # fmt: skip
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, GrpcCall] = {}
        self._blocked: list[GrpcCall] = []
        self._brought: list[GrpcCall] = []
        """Calls of which this read brought messages."""
        self._next = 1
        self._window = self._initial = DEFAULT_WINDOW
        self._frame = DEFAULT_FRAME
        self._credit = 0
        self._pings: list[asyncio.Future[None]] = []
        self._many = False
        """Whether this read brought many messages of one call."""
        self._frames = FrameReader(
            {
                FrameKind.DATA: self._on_data,
                FrameKind.HEADERS: self._on_headers,
                FrameKind.RST_STREAM: self._on_reset,
                FrameKind.SETTINGS: self._on_settings,
                FrameKind.PUSH_PROMISE: self._on_push,
                FrameKind.PING: self._on_ping,
                FrameKind.GOAWAY: self._on_goaway,
                FrameKind.WINDOW_UPDATE: self._on_window,
            }
        )

    # -- calls ------------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a call can begin on it."""
        return not self.leaving and not self.closed.done()

    def begin(self, call: GrpcCall, path: str, metadata: Iterable[tuple[str, str]]) -> None:
        """Send a call's headers, and as much of its request as the peer takes now. The connection is usable."""
        assert self._transport is not None
        call.stream, call.window = self._next, self._initial
        self._next += 2
        self.leaving = self.leaving or self._next > _LAST_STREAM
        self._calls[call.stream] = call
        block = hpack.encode(((":path", path), *self._fixed, *metadata))
        self._transport.write(frame(FrameKind.HEADERS, END_HEADERS, call.stream, block) + self._sendable(call))
        if call.unsent:
            self._blocked.append(call)

    def _sendable(self, call: GrpcCall) -> bytes:
        frames = []
        while call.unsent:
            size = min(len(call.unsent), self._window, call.window, self._frame)
            if size <= 0:
                break
            part, call.unsent = call.unsent[:size], call.unsent[size:]
            self._window -= size
            call.window -= size
            frames.append(frame(FrameKind.DATA, 0 if call.unsent else END_STREAM, call.stream, part))
        return b"".join(frames)

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, []
        for call in blocked:
            self._write(self._sendable(call))
            if call.unsent and call.stream in self._calls:
                self._blocked.append(call)

    def leave(self, call: GrpcCall) -> None:
        """Cancel a call. What is under way to us of it is still handed over, its end is not told."""
        if call.stream in self._calls and not call.left:
            call.left, call.unsent = True, b""
            self._write(frame(FrameKind.RST_STREAM, 0, call.stream, struct.pack(">I", _CANCEL)))

    def ping(self) -> asyncio.Future[None]:
        """Done once the peer has answered, and so all that it wrote before is here; or once the connection ends."""
        answered = asyncio.get_running_loop().create_future()
        if self.closed.done():
            answered.set_result(None)
        else:
            self._pings.append(answered)
            self._write(frame(FrameKind.PING, 0, 0, bytes(8)))
        return answered

    def _pinged(self) -> None:
        pings, self._pings = self._pings, []
        for ping in pings:
            if not ping.done():
                ping.set_result(None)

    def retire(self) -> None:
        """Take no more calls, and close once those under way have ended."""
        self.leaving = True
        if not self._calls:
            self.close()

    def close(self) -> None:
        """Close it; calls under way end as cancelled."""
        if not self.closed.done():
            self._write(frame(FrameKind.GOAWAY, 0, 0, bytes(8)))
            self._end(None, StatusCode.CANCELLED, "the connection was closed")

    # -- asyncio's side ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_made`."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        ours = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: _WINDOW,
            Setting.MAX_FRAME_SIZE: LARGEST_FRAME,
        }
        self._write(PREFACE + settings(ours) + window_update(0, 4 * _WINDOW - DEFAULT_WINDOW))

    def data_received(self, data: bytes) -> None:
        """Act on the frames that ``data`` completes."""
        self._many = False
        try:
            self._frames.feed(data)
        except Http2Error as error:
            self._hand_over()
            self._end(str(error), StatusCode.INTERNAL)
            return
        self._hand_over()
        if self._credit >= _WINDOW:
            self._write(window_update(0, self._credit))
            self._credit = 0
        if self._many and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_READ_PAUSE, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _hand_over(self) -> None:
        brought, self._brought = self._brought, []
        for call in brought:
            call.hand_over()

    @property
    def greeted(self) -> bool:
        """Whether the peer has begun to speak HTTP/2."""
        return self._frames.greeted

    def connection_lost(self, exc: Exception | None) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_lost`."""
        why = "it closed the connection" if exc is None else f"the connection broke, {exc}"
        self._end(why, StatusCode.UNAVAILABLE)

    def _end(self, why: str | None, code: StatusCode, details: str = "") -> None:
        if self.closed.done():
            return
        self.closed.set_result(why)
        self._pinged()
        calls, self._calls, self._blocked = self._calls, {}, []
        if self._transport is not None:
            self._transport.close()
        for call in calls.values():
            if not call.left:
                call.ended(CallEnd(code, details or why or ""))

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # -- frames -----------------------------------------------------------------------------------------------------

    def _on_data(self, stream: int, flags: int, payload: bytes) -> None:
        self._credit += len(payload)
        call = self._calls.get(stream)
        if call is None:
            return
        if not flags & END_STREAM:
            call.credit += len(payload)
            if call.credit >= _WINDOW // 2:
                self._write(window_update(stream, call.credit))
                call.credit = 0
        call.begun = True
        messages = call.reader.feed(unpadded(FrameKind.DATA, flags, payload) if flags & PADDED else payload)
        if messages:
            if not call.messages:
                self._brought.append(call)
            call.messages += messages
            self._many = self._many or len(call.messages) >= _MANY
        if flags & END_STREAM:
            self._finish(call)

    def _on_headers(self, stream: int, flags: int, block: bytes) -> None:
        headers = hpack.decode(block)
        call = self._calls.get(stream)
        if call is not None:
            call.headers |= headers
            if len(call.headers) > _MOST_HEADERS:
                raise Http2Error("headers without an end")
            if flags & END_STREAM:
                self._finish(call)

    def _finish(self, call: GrpcCall) -> None:
        del self._calls[call.stream]
        if call.unsent:  # it answered before it had the whole request
            call.unsent = b""
            self._write(frame(FrameKind.RST_STREAM, 0, call.stream, struct.pack(">I", _CANCEL)))
        call.hand_over()
        if not call.left:
            call.ended(call.outcome())
        if self.leaving and not self._calls:
            self.close()

    def _on_reset(self, stream: int, flags: int, payload: bytes) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            call.unsent = b""
            code = int.from_bytes(payload[:4], "big")
            call.hand_over()
            if not call.left:
                call.ended(CallEnd(_CODES.get(code, StatusCode.INTERNAL), f"the call was reset, code {code}"))

    def _on_settings(self, stream: int, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        values = read_settings(payload)
        initial = values.get(Setting.INITIAL_WINDOW_SIZE, self._initial)
        for call in self._calls.values():
            call.window += initial - self._initial
        self._initial = initial
        self._frame = min(max(values.get(Setting.MAX_FRAME_SIZE, self._frame), DEFAULT_FRAME), LARGEST_FRAME)
        self._write(frame(FrameKind.SETTINGS, ACK, 0))
        self._unblock()

    def _on_push(self, stream: int, flags: int, payload: bytes) -> None:
        raise Http2Error("a push, which was not allowed")

    def _on_ping(self, stream: int, flags: int, payload: bytes) -> None:
        if flags & ACK:
            self._hand_over()
            self._pinged()
        else:
            self._write(frame(FrameKind.PING, ACK, 0, payload))

    def _on_goaway(self, stream: int, flags: int, payload: bytes) -> None:
        self.leaving = True
        last = int.from_bytes(payload[:4], "big") & _LAST_STREAM
        for call in [call for number, call in self._calls.items() if number > last]:
            del self._calls[call.stream]
            call.unsent = b""
            if not call.left:
                call.ended(CallEnd(StatusCode.UNAVAILABLE, "it is going away"))
        if not self._calls:
            self.close()

    def _on_window(self, stream: int, flags: int, payload: bytes) -> None:
        size = int.from_bytes(payload[:4], "big") & _LAST_STREAM
        if stream:
            call = self._calls.get(stream)
            if call is not None:
                call.window += size
        else:
            self._window += size
        if self._blocked:
            self._unblock()
