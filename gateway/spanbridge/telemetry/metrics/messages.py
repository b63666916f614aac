"""What is counted and measured of messages on the way up (docs/telemetry.md has the list with attributes and units)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spanbridge.telemetry.direction import DESTINATION, TEMPLATE, UPLINK
from spanbridge.telemetry.metrics.convention import Convention, OperationLabels
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram, Labels
from spanbridge.telemetry.peer import Peer

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class MessageMetrics:
    """Hot-path metrics, cheap enough for every batch. Times are in seconds.

    ``template`` is a route's filter and ``topic`` a RocketMQ topic. A route may name its topic after levels of the MQTT
    topic, so the number of series is bounded (see :data:`~spanbridge.telemetry.metrics.hot.SERIES`). ``error`` is an
    ``error.type``.
    """

    def __init__(
        self, source: Peer | None = None, target: Peer | None = None, *, convention: Convention | None = None
    ) -> None:
        """Measure the way up; ``convention`` are the instruments that the way down shares."""
        self.convention = convention or Convention()
        self._labels = OperationLabels(UPLINK, source, target)
        self._consumed, self._sent = self.convention.consumed, self.convention.sent
        self._operation, self._process = self.convention.operation, self.convention.process
        self._dropped = HotCounter("spanbridge.dropped", "{message}", "Messages dropped on purpose.")
        self._rejected = HotCounter("spanbridge.rejected", "{message}", "Messages stored in the rejected topic.")
        self._context = HotCounter(
            "spanbridge.context", "{message}", "Messages by the trace context that they carried."
        )
        self._batch_size = HotHistogram(
            "spanbridge.batch.size", "{message}", "Messages in one request to RocketMQ.", _BATCH_SIZES
        )
        self._batch_duration = HotHistogram(
            "spanbridge.batch.duration", "s", "Time from the arrival of a batch's oldest message to RocketMQ's result."
        )

    def use(self, source: Peer | None, target: Peer | None) -> None:
        """Name these peers from now on: the configuration was read again."""
        self._labels.use(source, target)

    def declare(
        self,
        reasons: Mapping[str, Sequence[str]],
        topics: Iterable[str],
        *,
        rejected: Iterable[tuple[str, str, str]] = (),
        outcomes: Iterable[str] = (),
    ) -> None:
        """Have series at 0 where their labels are known: one that begins at 1 hides its first message.

        ``reasons`` are the reasons for dropping by each template, ``topics`` the RocketMQ topics that the configuration
        fixes, ``rejected`` triples of template, reason and rejected topic. A counter that would get too many series
        gets none (:data:`~spanbridge.telemetry.metrics.hot.DECLARED`).
        """
        self._consumed.declare(self._labels.received(template, None) for template in reasons)
        self._sent.declare(self._labels.requested(topic, None) for topic in topics)
        self._dropped.declare(_refused(template, reason) for template, found in reasons.items() for reason in found)
        self._rejected.declare((*_refused(template, reason), ("topic", topic)) for template, reason, topic in rejected)
        self._context.declare((("outcome", outcome),) for outcome in outcomes)

    @property
    def counters(self) -> Iterable[HotCounter]:
        """All counters."""
        return (self._consumed, self._sent, self._dropped, self._rejected, self._context)

    @property
    def histograms(self) -> Iterable[HotHistogram]:
        """All histograms."""
        return (self._operation, self._process, self._batch_size, self._batch_duration)

    def consumed(self, template: str, count: int, error: str | None = None) -> None:
        """Messages that a route took from MQTT."""
        self._consumed.add(self._labels.received(template, error), count)

    def requested(self, topic: str, count: int, seconds: float, error: str | None = None) -> None:
        """One attempt to send ``count`` messages."""
        labels = self._labels.requested(topic, error)
        self._operation.record(labels, seconds)
        self._sent.add(labels, count)

    def process_duration(self, template: str, seconds: float, count: int = 1, error: str | None = None) -> None:
        """From receiving a message to acknowledging it."""
        self._process.record(self._labels.received(template, error), seconds, count)

    def batch(self, topic: str, size: int, seconds: float | None = None) -> None:
        """A batch that RocketMQ stored; ``seconds`` since its oldest message arrived."""
        labels = ((DESTINATION, topic),)
        self._batch_size.record(labels, size)
        if seconds is not None:
            self._batch_duration.record(labels, seconds)

    def dropped(self, template: str, reason: str, count: int = 1) -> None:
        """Messages dropped on purpose; ``template`` is "(unroutable)" for those that no route took."""
        self._dropped.add(_refused(template, reason), count)

    def rejected(self, template: str, reason: str, topic: str, count: int = 1) -> None:
        """Messages stored in the rejected ``topic`` instead of their own."""
        self._rejected.add((*_refused(template, reason), ("topic", topic)), count)

    def context(self, outcome: str, count: int = 1) -> None:
        """Messages with a ``valid`` context, with none (``absent``), or with one that has a problem (its name)."""
        self._context.add((("outcome", outcome),), count)


def _refused(template: str, reason: str) -> Labels:
    return ((TEMPLATE, template), ("reason", reason))
