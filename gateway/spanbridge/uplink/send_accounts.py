"""What is told of requests to RocketMQ: spans, metrics, and the numbers on /status."""

from __future__ import annotations

from dataclasses import dataclass

from spanbridge.core.cache import Generations
from spanbridge.ports import Clock
from spanbridge.telemetry import Hop, MessageMetrics, MessageTrace, Peer, Tracer
from spanbridge.uplink.recipe import Outgoing, send_hop
from spanbridge.uplink.tally import Tally


@dataclass(slots=True)
class BatchTally:
    """Requests so far, for /status. ``failed`` counts attempts, ``stored_ns`` the time that the good ones took."""

    stored: int = 0
    messages: int = 0
    failed: int = 0
    stored_ns: int = 0


class SendAccounts:
    """Tells of each request, and of the messages that it stored. ``cluster`` describes RocketMQ in spans."""

    def __init__(self, tracer: Tracer, metrics: MessageMetrics, clock: Clock, cluster: Peer) -> None:
        self.tally = BatchTally()
        self._tracer = tracer
        self._metrics = metrics
        self._clock = clock
        self._cluster = cluster
        self._hops: Generations[str, Hop] = Generations(2048)

    def use(self, cluster: Peer) -> None:
        """Describe RocketMQ like this from now on."""
        self._cluster = cluster
        self._hops = Generations(2048)

    def requested(self, topic: str, batch: list[Outgoing], started: int, ended: int, reason: str | None) -> None:
        """Telemetry of one request."""
        hop = self._hops.young.get(topic) or self._hop(topic)
        self._tracer.requested(hop, [outgoing.trace for outgoing in batch], started, ended, reason)
        self._metrics.requested(topic, len(batch), max(0.0, (ended - started) / 1e9), reason)

    def _hop(self, topic: str) -> Hop:
        hop = self._hops.get(topic)
        if hop is None:
            hop = send_hop(topic, self._cluster)
            self._hops.put(topic, hop)
        return hop

    def stored(self, topic: str, batch: list[Outgoing], traces: list[MessageTrace | None]) -> None:
        """Tell of messages that are stored."""
        self._tracer.stored(traces, self._clock.now_ns())
        self._count(topic, batch)

    def _count(self, topic: str, batch: list[Outgoing]) -> None:
        """Metrics of a batch that is stored: messages of one read and route are counted together."""
        now = self._clock.now_ns()
        self._metrics.batch(topic, len(batch), max(0.0, (now - batch[0].delivery.message.received_ns) / 1e9))
        runs: dict[tuple[Tally, int], int] = {}
        for outgoing in batch:
            recipe = outgoing.recipe
            if recipe.rejected is not None:
                recipe.tally.rejected[recipe.rejected] += 1
                self._metrics.rejected(recipe.tally.filter, recipe.rejected, topic)
                continue
            run = (recipe.tally, outgoing.delivery.message.received_ns)
            runs[run] = runs.get(run, 0) + 1
        for (tally, received), count in runs.items():
            tally.sent += count
            self._metrics.process_duration(tally.filter, max(0.0, (now - received) / 1e9), count)
