"""When bytes arrived that were read later. Pure: the connection brings the numbers.

While a socket is paused, what the broker sends waits in the kernel's buffer, for as long as RocketMQ is slow. That time
counts for a message's expiry. So the number of unread bytes is looked at every ``SAMPLE`` seconds: what was not there
at one look and is at the next came in between. It is put at the later of the two, so nothing expires too early.
"""

from __future__ import annotations

from collections import deque

SAMPLE = 0.1
"""Seconds between two looks at a paused socket."""


class Arrivals:
    """Positions in the stream of bytes, and by when what lies before them had arrived (monotonic time, ns)."""

    __slots__ = ("_seen", "position")

    def __init__(self) -> None:
        self.position = 0
        """Bytes read so far."""
        self._seen: deque[tuple[int, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def look(self, unread: int, now_ns: int) -> None:
        """``unread`` bytes wait in the socket now."""
        end = self.position + unread
        last = self._seen[-1][0] if self._seen else self.position
        if end > last:
            self._seen.append((end, now_ns))

    def read(self, data: bytes, now_ns: int) -> list[tuple[bytes, int]]:
        """Account for what was read: the same bytes in pieces, each with the time by which it had arrived."""
        seen = self._seen
        start, end = self.position, self.position + len(data)
        self.position = end
        if not seen:
            return [(data, now_ns)]
        pieces: list[tuple[bytes, int]] = []
        at = start
        while seen and at < end:
            until, when = seen[0]
            if until > end:
                pieces.append((data[at - start :], when))
                return pieces
            seen.popleft()
            pieces.append((data[at - start : until - start], when))
            at = until
        if at < end:
            pieces.append((data[at - start :], now_ns))
        return pieces
