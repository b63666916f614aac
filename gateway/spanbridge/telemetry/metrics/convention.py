"""The four metrics of the messaging conventions (version 1.44), which both directions share, and their labels."""

from __future__ import annotations

from spanbridge.telemetry.direction import Direction
from spanbridge.telemetry.metrics.hot import HotCounter, HotHistogram, Labels
from spanbridge.telemetry.peer import Peer

_KNOWN = 4096
_GROUP = "messaging.consumer.group.name"


class Convention:
    """The instruments. One per gateway: of two metrics of one name only the first is exported."""

    def __init__(self) -> None:
        self.consumed = HotCounter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self.sent = HotCounter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self.operation = HotHistogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
        )
        self.process = HotHistogram("messaging.process.duration", "s", "Duration of processing operation.")


class OperationLabels:
    """The attributes of one direction's operations, by what is done where. ``error`` is an ``error.type``."""

    def __init__(self, direction: Direction, source: Peer | None, target: Peer | None) -> None:
        self._direction = direction
        self._source = _where(source)
        self._target = _where(target)
        self._known: dict[tuple[str, str, str | None, str | None], Labels] = {}

    def use(self, source: Peer | None, target: Peer | None) -> None:
        """Name these peers from now on."""
        self._source, self._target = _where(source), _where(target)
        self._known.clear()

    def received(self, name: str, error: str | None, operation: str = "process", group: str | None = None) -> Labels:
        """Of what is done with messages from the source; ``group`` is the consumer group."""
        key = (operation, name, error, group)
        way = self._direction
        return self._known.get(key) or self._learn(key, way.source, way.source_label, self._source)

    def requested(self, name: str, error: str | None) -> Labels:
        """Of what is sent to the sink."""
        key = ("send", name, error, None)
        way = self._direction
        return self._known.get(key) or self._learn(key, way.sink, way.sink_label, self._target)

    def _learn(
        self, key: tuple[str, str, str | None, str | None], system: str, destination: str, where: Labels
    ) -> Labels:
        operation, name, error, group = key
        labels: Labels = (
            ("messaging.system", system),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", "settle" if operation == "ack" else operation),
            (destination, name),
            *where,
        )
        if group is not None:
            labels += ((_GROUP, group),)
        if error is not None:
            labels += (("error.type", error),)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[key] = labels
        return labels


def _where(peer: Peer | None) -> Labels:
    attributes = peer.attributes() if peer is not None else {}
    return tuple((name, value) for name, value in attributes.items() if name.startswith("server."))
