"""The calls of one HTTP/2 connection: those under way by their numbers, and those that cannot begin yet."""

from __future__ import annotations

from collections import deque

from spanbridge.rocketmq.grpc.http2.call import GrpcCall
from spanbridge.rocketmq.grpc.http2.frames import DEFAULT_WINDOW

LAST_STREAM = (1 << 31) - 1
_MOST_LEFT = 64
"""Calls that were cancelled and of which something may still come."""


class Streams:
    """Numbers calls in the order in which they begin (RFC 9113 section 5.1.1)."""

    def __init__(self) -> None:
        self.under_way: dict[int, GrpcCall] = {}
        self.most = LAST_STREAM
        """Calls that the peer takes at once."""
        self._window = DEFAULT_WINDOW
        self._next = 1
        self._left: dict[int, GrpcCall] = {}
        self._waiting: deque[tuple[GrpcCall, bytes]] = deque()

    @property
    def full(self) -> bool:
        """Whether the peer takes no call more now, or one is before it."""
        return len(self.under_way) >= self.most or bool(self._waiting)

    @property
    def used_up(self) -> bool:
        """Whether there is no number for another call."""
        return self._next > LAST_STREAM

    def begin(self, call: GrpcCall) -> None:
        """Give a call its number, and the window that the peer has for new ones."""
        call.stream, call.window = self._next, self._window
        self._next += 2
        self.under_way[call.stream] = call

    def wait(self, call: GrpcCall, headers: bytes) -> None:
        """Keep a call until there is room."""
        self._waiting.append((call, headers))

    def next(self) -> tuple[GrpcCall, bytes] | None:
        """The call that has waited longest, where the peer takes one."""
        return self._waiting.popleft() if self._waiting and len(self.under_way) < self.most else None

    def refused(self) -> list[GrpcCall]:
        """Those that waited. They wait no more."""
        waiting, self._waiting = self._waiting, deque()
        return [call for call, _ in waiting]

    def find(self, stream: int) -> GrpcCall | None:
        """The call that a frame is for; also one that was cancelled."""
        return self.under_way.get(stream) or self._left.get(stream)

    def leave(self, call: GrpcCall) -> bool:
        """Keep a call apart that was cancelled; whether it was under way."""
        if self.under_way.pop(call.stream, None) is None:
            if not call.stream:
                self._waiting = deque(one for one in self._waiting if one[0] is not call)
            return False
        call.left = True
        self._left[call.stream] = call
        if len(self._left) > _MOST_LEFT:
            del self._left[next(iter(self._left))]
        return True

    def end(self, call: GrpcCall) -> None:
        """It is over."""
        self.under_way.pop(call.stream, None)
        self._left.pop(call.stream, None)

    def resize(self, window: int) -> None:
        """The peer has another window for calls: also for those under way (section 6.9.2)."""
        for call in self.under_way.values():
            call.window += window - self._window
        self._window = window
