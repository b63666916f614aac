"""Adaptive batching, by group commit.

A partition with nothing on its way sends what it has at once, so an idle gateway adds no latency. While a request is
on its way, messages gather, and leave as one request when it returns or when the batch is full. Batches grow with the
load by themselves; no timer decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Encoded(Protocol):
    """What a partition holds: anything with its encoded form."""

    encoded: bytes


E = TypeVar("E", bound=Encoded)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """``max_messages`` and ``max_bytes`` of a request; ``concurrency`` requests at a time where order is free."""

    max_messages: int = 128
    max_bytes: int = 1 << 20
    concurrency: int = 4


class Partition(Generic[E]):
    """Messages of one RocketMQ topic that may share a request. An ordered one has one request on its way at most.

    ``failing_ns`` is since when the cluster has said that the topic cannot be used (monotonic, ns), None while it can.
    """

    __slots__ = (
        "__weakref__",
        "_limits",
        "_requests",
        "failing_ns",
        "in_flight",
        "key",
        "pending",
        "pending_bytes",
        "topic",
    )

    def __init__(self, topic: str, key: int, limits: BatchLimits) -> None:
        self.topic = topic
        self.key = key
        self.pending: list[E] = []
        self.pending_bytes = 0
        self.in_flight = 0
        self.failing_ns: int | None = None
        self.use(limits)

    def use(self, limits: BatchLimits) -> None:
        """Make batches by these limits from now on."""
        self._limits = limits
        self._requests = 1 if self.key >= 0 else limits.concurrency

    def add(self, entry: E) -> None:
        """Queue a message at the end."""
        self.pending.append(entry)
        self.pending_bytes += len(entry.encoded)

    def extend(self, entries: list[E]) -> None:
        """Queue messages at the end."""
        self.pending += entries
        self.pending_bytes += sum(len(entry.encoded) for entry in entries)

    def take(self) -> list[E] | None:
        """The batch that should leave now, or None. The caller sends it and calls :meth:`done` whatever comes of it."""
        pending, limits = self.pending, self._limits
        if not pending or self.in_flight >= self._requests:
            return None
        full = len(pending) >= limits.max_messages or self.pending_bytes >= limits.max_bytes
        if self.in_flight and not full:
            return None
        batch = self._cut()
        self.in_flight += 1
        return batch

    def done(self) -> None:
        """A request returned."""
        self.in_flight -= 1

    def _cut(self) -> list[E]:
        pending, limits = self.pending, self._limits
        if self.pending_bytes <= limits.max_bytes and len(pending) <= limits.max_messages:
            self.pending, self.pending_bytes = [], 0
            return pending
        size = count = 0
        for entry in pending[: limits.max_messages]:
            if count and size + len(entry.encoded) > limits.max_bytes:
                break
            size += len(entry.encoded)
            count += 1
        self.pending = pending[count:]
        self.pending_bytes -= size
        return pending[:count]
