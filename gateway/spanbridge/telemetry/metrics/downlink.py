"""What is counted and measured of messages on the way down (docs/telemetry.md has the list)."""

from __future__ import annotations

from collections.abc import Iterable

from spanbridge.telemetry.direction import DOWNLINK
from spanbridge.telemetry.metrics.convention import Convention, OperationLabels
from spanbridge.telemetry.metrics.hot import HotCounter
from spanbridge.telemetry.peer import Peer


class DownlinkMetrics:
    """The convention's metrics of the way down. Times are in seconds, ``error`` is an ``error.type``.

    ``topic`` is a RocketMQ topic, ``group`` a consumer group, ``template`` a downlink's template of MQTT topics.
    """

    def __init__(self, convention: Convention, cluster: Peer | None = None, broker: Peer | None = None) -> None:
        self._convention = convention
        self._labels = OperationLabels(DOWNLINK, cluster, broker)
        self._context = HotCounter(
            "spanbridge.downlink.context", "{message}", "RocketMQ messages by the trace context that they carried."
        )

    @property
    def counters(self) -> Iterable[HotCounter]:
        """Those that the way up does not share."""
        return (self._context,)

    def use(self, cluster: Peer | None, broker: Peer | None) -> None:
        """Name these peers from now on: the configuration was read again."""
        self._labels.use(cluster, broker)

    def declare(self, topic: str, group: str, template: str) -> None:
        """Have the series of a downlink at 0: one that begins at 1 hides its first message."""
        self._convention.consumed.declare((self._labels.received(topic, None, group=group),))
        self._convention.sent.declare((self._labels.requested(template, None),))

    def context(self, outcome: str, count: int = 1) -> None:
        """Messages with a ``valid`` context, with none (``absent``), or with one that has a problem (its name)."""
        self._context.add((("outcome", outcome),), count)

    def consumed(self, topic: str, group: str, count: int) -> None:
        """Messages that a downlink took from RocketMQ."""
        self._convention.consumed.add(self._labels.received(topic, None, group=group), count)

    def published(self, template: str, seconds: float, count: int = 1, error: str | None = None) -> None:
        """Messages handed to the MQTT broker: from then to its answer."""
        labels = self._labels.requested(template, error)
        self._convention.operation.record(labels, seconds, count)
        self._convention.sent.add(labels, count)

    def process_duration(
        self, topic: str, group: str, seconds: float, count: int = 1, error: str | None = None
    ) -> None:
        """From receiving a message to acknowledging it, or giving it up."""
        self._convention.process.record(self._labels.received(topic, error, group=group), seconds, count)

    def called(self, operation: str, topic: str, group: str, seconds: float, error: str | None = None) -> None:
        """One call to RocketMQ: ``receive`` or ``ack``."""
        self._convention.operation.record(self._labels.received(topic, error, operation, group), seconds)
