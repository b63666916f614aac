"""Which brokers let a consumer group receive, and why others do not."""

from __future__ import annotations

from typing import Any, Protocol

from spanbridge.core.errors import SinkError
from spanbridge.ports import Reporter
from spanbridge.rocketmq import receive_events as events
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.topic_routes import TopicRoutes


class RoutingCluster(Protocol):
    """What is told of failures."""

    @property
    def routes(self) -> TopicRoutes[Any]:
        """The routes of topics."""

    def note_error(self, error: str) -> None:
        """Keep what went wrong last."""


class ReceiveHealth:
    """What is told of a broker, or of the cluster ("")."""

    def __init__(self, options: ConsumerOptions, cluster: RoutingCluster, reporter: Reporter) -> None:
        self._options = options
        self._cluster = cluster
        self._reporter = reporter
        self._working: set[str] = set()
        self._failing: dict[str, str] = {}

    @property
    def working(self) -> frozenset[str]:
        """The brokers from which messages come, or would if there were any."""
        return frozenset(self._working)

    @property
    def failing(self) -> str | None:
        """Why a broker, or the cluster, lets us receive nothing; None while none says so."""
        return self._failing.get("") or next(iter(self._failing.values()), None)

    def works(self, broker: str) -> None:
        """A request to a broker ended as it should, or waits there for messages."""
        over = [part for part in ("", broker) if self._failing.pop(part, None) is not None]
        if broker not in self._working:
            self._working.add(broker)
            over = [*over, broker] if broker not in over else over
        for part in over:
            self._reporter.report(
                events.ReceiveWorks(group=self._options.group, topic=self._options.topic, broker=part)
            )

    def fails(self, broker: str, error: SinkError, retry_in: float) -> None:
        """A request failed. The route may be at fault, and is asked for anew."""
        self._working.discard(broker)
        self._failing[broker] = str(error)
        self._cluster.note_error(str(error))
        self._reporter.report(
            events.ReceiveFailed(
                group=self._options.group, topic=self._options.topic, broker=broker, reason=error.reason,
                cause=str(error), retry_in=retry_in,
            )
        )  # fmt: skip
        self._cluster.routes.suspect(self._options.topic)

    def forget(self, broker: str) -> None:
        """Nothing is asked of it any more."""
        self._working.discard(broker)
        self._failing.pop(broker, None)
