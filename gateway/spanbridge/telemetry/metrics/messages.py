"""What is counted and measured of messages (docs/telemetry.md has the list with attributes and units)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spanbridge.telemetry.direction import DESTINATION, TEMPLATE, UPLINK, Direction
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram, Labels
from spanbridge.telemetry.peer import Peer

_KNOWN = 4096
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class MessageMetrics:
    """Hot-path metrics, cheap enough for every batch. Times are in seconds.

    ``template`` is a route's filter and ``topic`` a RocketMQ topic. A route may name its topic after levels of the MQTT
    topic, so the number of series is bounded (see :data:`~spanbridge.telemetry.metrics.hot.SERIES`). ``error`` is an
    ``error.type``.
    """

    def __init__(
        self, source: Peer | None = None, target: Peer | None = None, *, direction: Direction = UPLINK
    ) -> None:
        self._direction = direction
        self._source = _where(source)
        self._target = _where(target)
        self._known: dict[tuple[str, str, str | None], Labels] = {}
        self._consumed = HotCounter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self._sent = HotCounter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._dropped = HotCounter("spanbridge.dropped", "{message}", "Messages dropped on purpose.")
        self._rejected = HotCounter("spanbridge.rejected", "{message}", "Messages stored in the rejected topic.")
        self._context = HotCounter(
            "spanbridge.context", "{message}", "Messages by the trace context that they carried."
        )
        self._operation = HotHistogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
        )
        self._process = HotHistogram("messaging.process.duration", "s", "Duration of processing operation.")
        self._batch_size = HotHistogram(
            "spanbridge.batch.size", "{message}", "Messages in one request to RocketMQ.", _BATCH_SIZES
        )
        self._batch_duration = HotHistogram(
            "spanbridge.batch.duration", "s", "Time from the arrival of a batch's oldest message to RocketMQ's result."
        )

    def use(self, source: Peer | None, target: Peer | None) -> None:
        """Name these peers from now on: the configuration was read again."""
        self._source, self._target = _where(source), _where(target)
        self._known.clear()

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
        self._consumed.declare(self._received(template, None) for template in reasons)
        self._sent.declare(self._requested(topic, None) for topic in topics)
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
        self._consumed.add(self._received(template, error), count)

    def requested(self, topic: str, count: int, seconds: float, error: str | None = None) -> None:
        """One attempt to send ``count`` messages."""
        labels = self._requested(topic, error)
        self._operation.record(labels, seconds)
        self._sent.add(labels, count)

    def process_duration(self, template: str, seconds: float, count: int = 1, error: str | None = None) -> None:
        """From receiving a message to acknowledging it."""
        self._process.record(self._received(template, error), seconds, count)

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

    def _received(self, name: str, error: str | None) -> Labels:
        key = ("process", name, error)
        way = self._direction
        return self._known.get(key) or self._learn(key, way.source, way.source_label, self._source)

    def _requested(self, name: str, error: str | None) -> Labels:
        key = ("send", name, error)
        way = self._direction
        return self._known.get(key) or self._learn(key, way.sink, way.sink_label, self._target)

    def _learn(self, key: tuple[str, str, str | None], system: str, destination: str, where: Labels) -> Labels:
        operation, name, error = key
        labels: Labels = (
            ("messaging.system", system),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", operation),
            (destination, name),
            *where,
        )
        if error is not None:
            labels += (("error.type", error),)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[key] = labels
        return labels


def _refused(template: str, reason: str) -> Labels:
    return ((TEMPLATE, template), ("reason", reason))


def _where(peer: Peer | None) -> Labels:
    attributes = peer.attributes() if peer is not None else {}
    return tuple((name, value) for name, value in attributes.items() if name.startswith("server."))
