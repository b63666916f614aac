"""Where spans wait for the exporter: bounded in bytes, in spans when asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class SpanBuffer:
    """Framed spans in the order they ended. What does not fit is dropped and counted: the newest, so that memory holds.

    ``ready`` is called when a full batch has come together. ``capacity`` is in bytes, ``max_spans`` in spans and at
    least ``batch_spans``: spans beyond it would be dropped before a batch is ever full.
    """

    def __init__(self, capacity: int, *, batch_spans: int, batch_bytes: int, max_spans: int | None = None) -> None:
        self._capacity = capacity
        self._max_spans = max_spans
        self._batch_spans = batch_spans
        self._batch_bytes = batch_bytes
        self._blobs: deque[tuple[bytes, int]] = deque()
        self.bytes = 0
        self.spans = 0
        self.dropped = 0
        self.ready: Callable[[], None] = _nothing

    def add(self, pieces: Sequence[bytes], each: int = 1) -> None:
        """Take framed spans, in so many pieces each. Never blocks, never raises."""
        count = len(pieces) // each
        if self._max_spans is not None and self.spans + count > self._max_spans:
            room = self._max_spans - self.spans
            self.dropped += count - room
            pieces = pieces[: room * each]
        most = self._batch_spans * each
        for at in range(0, len(pieces), most):
            self._add(pieces[at : at + most] if len(pieces) > most else pieces, each)

    def _add(self, pieces: Sequence[bytes], each: int) -> None:
        """Take spans that are few enough for one request; by bytes they may still be too many."""
        blob, count = b"".join(pieces), len(pieces) // each
        if len(blob) > self._batch_bytes and count > 1:
            middle = count // 2 * each
            self._add(pieces[:middle], each)
            self._add(pieces[middle:], each)
            return
        if self.bytes + len(blob) > self._capacity:
            self.dropped += count
            return
        self._blobs.append((blob, count))
        self.bytes += len(blob)
        self.spans += count
        if self.batch_is_full:
            self.ready()

    @property
    def batch_is_full(self) -> bool:
        """Whether there is no use in waiting for more."""
        return self.spans >= self._batch_spans or self.bytes >= self._batch_bytes

    def take(self) -> tuple[list[bytes], int]:
        """The oldest spans that fit into one request, in pieces, and how many they are; ([], 0) when empty."""
        blobs: list[bytes] = []
        taken = size = 0
        while self._blobs:
            blob, count = self._blobs[0]
            if blobs and (taken + count > self._batch_spans or size + len(blob) > self._batch_bytes):
                break
            self._blobs.popleft()
            blobs.append(blob)
            taken += count
            size += len(blob)
        self.bytes -= size
        self.spans -= taken
        return blobs, taken


def _nothing() -> None:
    """Nobody is listening yet."""
