"""Where spans wait for the exporter: bounded in bytes, in spans when asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence


class SpanBuffer:
    """Framed spans in the order they ended. What does not fit is dropped and counted: the newest, so that memory holds.

    ``ready`` is called when a full batch has come together. ``capacity`` is in bytes, ``max_spans`` in spans.
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
        for at in range(0, len(spans), self._batch_spans):
            part = spans[at : at + self._batch_spans] if len(spans) > self._batch_spans else spans
            self._add(b"".join(part), len(part))

    def _add(self, blob: bytes, count: int) -> None:
        if self.bytes + len(blob) > self._capacity or self._full(count):
            self.dropped += count
            return
        self._blobs.append((blob, count))
        self.bytes += len(blob)
        self.spans += count
        if self.spans >= self._batch_spans or self.bytes >= self._batch_bytes:
            self.ready()

    def _full(self, count: int) -> bool:
        return self._max_spans is not None and self.spans + count > self._max_spans

    @property
    def batch_is_full(self) -> bool:
        """Whether there is no use in waiting for more."""
        return self.spans >= self._batch_spans or self.bytes >= self._batch_bytes

    def take(self) -> tuple[bytes, int]:
        """The oldest spans that fit into one request, and how many they are; (b"", 0) when empty."""
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
        return b"".join(blobs), taken


def _nothing() -> None:
    """Nobody is listening yet."""
