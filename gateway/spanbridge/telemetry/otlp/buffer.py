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

    def add(self, spans: Sequence[bytes]) -> None:
        """Take framed spans. Never blocks, never raises."""
        if self._max_spans is not None and self.spans + len(spans) > self._max_spans:
            room = self._max_spans - self.spans
            self.dropped += len(spans) - room
            spans = spans[:room]
        for at in range(0, len(spans), self._batch_spans):
            self._add(spans[at : at + self._batch_spans] if len(spans) > self._batch_spans else spans)

    def _add(self, spans: Sequence[bytes]) -> None:
        """Take spans that are few enough for one request; by bytes they may still be too many."""
        blob = b"".join(spans)
        if len(blob) > self._batch_bytes and len(spans) > 1:
            middle = len(spans) // 2
            self._add(spans[:middle])
            self._add(spans[middle:])
            return
        if self.bytes + len(blob) > self._capacity:
            self.dropped += len(spans)
            return
        self._blobs.append((blob, len(spans)))
        self.bytes += len(blob)
        self.spans += len(spans)
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
