"""One HTTP/2 connection to a gRPC server, on the caller's event loop."""

from __future__ import annotations

import asyncio

from spanbridge.rocketmq.grpc.http2 import hpack
from spanbridge.rocketmq.grpc.http2.call import CallEnd, GrpcCall
from spanbridge.rocketmq.grpc.http2.errors import Http2Error, broken
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
    reset,
    settings,
    unpadded,
    window_update,
)
from spanbridge.rocketmq.grpc.http2.reader import LARGEST_FRAME, FrameReader
from spanbridge.rocketmq.grpc.http2.status import GrpcStatus
from spanbridge.rocketmq.grpc.http2.streams import LAST_STREAM, Streams
from spanbridge.rocketmq.grpc.http2.writer import FrameWriter

_WINDOW = 4 * 1024 * 1024
"""Bytes that one call's answer may be ahead of our reading; the connection's is four times that."""
_MANY = 16
"""Messages of one call in one read from which on the next read waits for more of them (docs/adr/0155)."""
_READ_PAUSE = 0.002
"""Seconds that it waits."""
_MOST_HEADERS = 256
_FAREWELL = 1.0
"""Seconds for a peer to read what was written before the connection was closed."""
_CANCEL = 0x8
_REFUSED = 0x7
_CODES = {_REFUSED: GrpcStatus.UNAVAILABLE, _CANCEL: GrpcStatus.CANCELLED}
_GOING = CallEnd(GrpcStatus.UNAVAILABLE, "it is going away")
_REPLACED = CallEnd(GrpcStatus.CANCELLED, "the connection was replaced")


class Http2Connection(asyncio.Protocol):
    """Calls on one connection. ``closed`` is done once it is; its result says why, None when we closed it.

    ``greeted`` is done once the peer has sent its settings, or never will; ``lost`` once nothing is left of it.
    """

    def __init__(self, authority: str, scheme: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[str | None] = self._loop.create_future()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.leaving = False
        """Whether it takes no more calls: the peer said goodbye, its numbers are used up, or we want another."""
        self.fault: Exception | None = None
        """What broke it."""
        self.silent = 0
        """Deadlines that passed in a row without an answer. Its user counts."""
        self._fixed = hpack.encode(((":method", "POST"), (":scheme", scheme), (":authority", authority)))
        self._transport: asyncio.Transport | None = None
        self._writer = FrameWriter()
        self._streams = Streams()
        self._brought: list[GrpcCall] = []
        """Calls of which this read brought messages."""
        self._credit = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pings: list[asyncio.Future[None]] = []
        self._many = False
        """Whether this read brought many messages of one call."""
        self._frames = FrameReader({
            FrameKind.DATA: self._on_data,
            FrameKind.HEADERS: self._on_headers,
            FrameKind.RST_STREAM: self._on_reset,
            FrameKind.SETTINGS: self._on_settings,
            FrameKind.PUSH_PROMISE: self._on_push,
            FrameKind.PING: self._on_ping,
            FrameKind.GOAWAY: self._on_goaway,
            FrameKind.WINDOW_UPDATE: self._on_window,
        })  # fmt: skip

    # -- calls ------------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a call can begin on it."""
        return not self.leaving and not self.closed.done()

    def begin(self, call: GrpcCall, headers: bytes) -> None:
        """Send a call's headers, and as much of its request as the peer takes now. The connection is usable.

        ``headers`` is a header block: the path first, then what is no pseudo-header. A call for which the peer or the
        socket has no room begins later.
        """
        if self._writer.full or self._streams.full:
            self._streams.wait(call, headers)
        else:
            self._begin(call, headers)

    def _begin(self, call: GrpcCall, headers: bytes) -> None:
        self._streams.begin(call)
        self._writer.push(call, frame(FrameKind.HEADERS, END_HEADERS, call.stream, self._fixed + headers))
        if self._streams.used_up:
            self.retire()

    def _begin_waiting(self) -> None:
        while self.usable and not self._writer.full and (waiting := self._streams.next()) is not None:
            self._begin(*waiting)

    def send(self, call: GrpcCall) -> None:
        """Send what was added to the messages of a call that goes on."""
        if call.stream in self._streams.under_way:
            self._writer.push(call)

    def leave(self, call: GrpcCall) -> None:
        """Cancel a call. What is under way to us of it is still handed over, its end is not told."""
        if self._streams.leave(call):
            self._writer.stop(call)
            self._writer.answer(reset(call.stream, _CANCEL))
            self._ended_one()

    def ping(self) -> asyncio.Future[None]:
        """Done once the peer has answered, and so all that it wrote before is here; or once the connection ends."""
        answered = self._loop.create_future()
        if self.closed.done():
            answered.set_result(None)
        else:
            self._pings.append(answered)
            self._writer.answer(frame(FrameKind.PING, 0, 0, bytes(8)))
        return answered

    def _pinged(self) -> None:
        pings, self._pings = self._pings, []
        for ping in pings:
            if not ping.done():
                ping.set_result(None)

    def retire(self, grace: float | None = None) -> None:
        """Take no more calls, and close once those under way have ended, after ``grace`` seconds in any case.

        Calls that go on would not end by themselves, and end now, as those that have not begun.
        """
        self._leave(LAST_STREAM, _REPLACED)
        if grace is None or self.closed.done():
            return
        if self._timer is None or self._loop.time() + grace < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(grace, self.close)

    def _leave(self, last: int, end: CallEnd) -> None:
        """Take no more calls; end those that did not get through (past the number ``last``), and those that go on."""
        self.leaving = True
        for call in self._streams.refused():
            call.end(end)
        for number, call in list(self._streams.under_way.items()):
            if number > last or not call.outgoing.whole:
                self._writer.answer(reset(number, _CANCEL))
                self._finish(call, end)
        if not self._streams.under_way:
            self.close()

    def close(self) -> None:
        """Close it; calls under way end as cancelled."""
        if not self.closed.done():
            self._writer.answer(frame(FrameKind.GOAWAY, 0, 0, bytes(8)))
            self._end(None, GrpcStatus.CANCELLED, "the connection was closed")

    # -- asyncio's side ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_made`."""
        self._transport = transport  # type: ignore[assignment]
        self._writer.connected(transport)  # type: ignore[arg-type]
        ours = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: _WINDOW,
            Setting.MAX_FRAME_SIZE: LARGEST_FRAME,
        }
        self._writer.answer(PREFACE + settings(ours) + window_update(0, 4 * _WINDOW - DEFAULT_WINDOW))

    def pause_writing(self) -> None:
        """See :meth:`asyncio.BaseProtocol.pause_writing`."""
        self._writer.full = True

    def resume_writing(self) -> None:
        """See :meth:`asyncio.BaseProtocol.resume_writing`."""
        self._writer.drained()
        self._begin_waiting()

    def data_received(self, data: bytes) -> None:
        """Act on the frames that ``data`` completes."""
        self._many = False
        try:
            self._frames.feed(data)
            self._writer.check()
        except Http2Error as error:
            self._hand_over()
            self._end(str(error), GrpcStatus.INTERNAL)
            return
        self._hand_over()
        if self._credit >= _WINDOW:
            self._writer.answer(window_update(0, self._credit))
            self._credit = 0
        if self._many and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(_READ_PAUSE, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _hand_over(self) -> None:
        brought, self._brought = self._brought, []
        for call in brought:
            call.hand_over()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_lost`."""
        if not self.closed.done():
            self.fault = exc
            self._end(broken(exc), GrpcStatus.UNAVAILABLE)
        if self._timer is not None:
            self._timer.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def _end(self, why: str | None, code: GrpcStatus, details: str = "") -> None:
        if self.closed.done():
            return
        self.closed.set_result(why)
        if not self.greeted.done():
            self.greeted.set_result(None)
        self._pinged()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
            self._timer = self._loop.call_later(_FAREWELL, self._transport.abort)
        calls = [*self._streams.under_way.values(), *self._streams.refused()]
        self._streams.under_way.clear()
        for call in calls:
            self._writer.stop(call)
            call.end(CallEnd(code, details or why or ""))

    # -- frames -----------------------------------------------------------------------------------------------------

    def _on_data(self, stream: int, flags: int, payload: bytes) -> None:
        self._credit += len(payload)
        call = self._streams.find(stream)
        if call is None:
            return
        if not flags & END_STREAM:
            call.credit += len(payload)
            if call.credit >= _WINDOW // 2:
                self._writer.answer(window_update(stream, call.credit))
                call.credit = 0
        messages = call.reader.feed(unpadded(FrameKind.DATA, flags, payload) if flags & PADDED else payload)
        if messages:
            if not call.messages:
                self._brought.append(call)
            if not call.took(messages):
                self._writer.answer(reset(stream, _CANCEL))
                self._finish(call, CallEnd(GrpcStatus.INTERNAL, "more than one answer"))
                return
            self._many = self._many or len(call.messages) >= _MANY
        if flags & END_STREAM:
            self._finish(call)

    def _on_headers(self, stream: int, flags: int, block: bytes) -> None:
        headers = hpack.decode(block)
        call = self._streams.find(stream)
        if call is not None:
            call.headers |= headers
            if len(call.headers) > _MOST_HEADERS:
                raise Http2Error("headers without an end")
            if flags & END_STREAM:
                self._finish(call)

    def _finish(self, call: GrpcCall, outcome: CallEnd | None = None) -> None:
        """A call is over; without an outcome, as its headers say."""
        self._streams.end(call)
        if outcome is None and (call.outgoing.size or not call.outgoing.whole):  # it did not want the rest
            self._writer.answer(reset(call.stream, _CANCEL))
        self._writer.stop(call)
        call.hand_over()
        call.end(call.outcome() if outcome is None else outcome)
        self._ended_one()

    def _ended_one(self) -> None:
        if self.leaving and not self._streams.under_way:
            self.close()
        else:
            self._begin_waiting()

    def _on_reset(self, stream: int, flags: int, payload: bytes) -> None:
        call = self._streams.find(stream)
        if call is not None:
            code = int.from_bytes(payload[:4], "big")
            self._finish(call, CallEnd(_CODES.get(code, GrpcStatus.INTERNAL), f"the call was reset, code {code}"))

    def _on_settings(self, stream: int, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        values = read_settings(payload)
        if Setting.INITIAL_WINDOW_SIZE in values:
            self._streams.resize(values[Setting.INITIAL_WINDOW_SIZE])
        largest = values.get(Setting.MAX_FRAME_SIZE, self._writer.frame)
        self._writer.frame = min(max(largest, DEFAULT_FRAME), LARGEST_FRAME)
        self._streams.most = values.get(Setting.MAX_CONCURRENT_STREAMS, self._streams.most)
        self._writer.answer(frame(FrameKind.SETTINGS, ACK, 0))
        if not self.greeted.done():
            self.greeted.set_result(None)
        self._writer.go_on()
        self._begin_waiting()

    def _on_push(self, stream: int, flags: int, payload: bytes) -> None:
        raise Http2Error("a push, which was not allowed")

    def _on_ping(self, stream: int, flags: int, payload: bytes) -> None:
        if flags & ACK:
            self._hand_over()
            self._pinged()
        else:
            self._writer.answer(frame(FrameKind.PING, ACK, 0, payload))

    def _on_goaway(self, stream: int, flags: int, payload: bytes) -> None:
        self._leave(int.from_bytes(payload[:4], "big") & LAST_STREAM, _GOING)

    def _on_window(self, stream: int, flags: int, payload: bytes) -> None:
        size = int.from_bytes(payload[:4], "big") & LAST_STREAM
        if stream:
            call = self._streams.under_way.get(stream)
            if call is not None:
                call.window += size
        else:
            self._writer.window += size
        self._writer.go_on()
