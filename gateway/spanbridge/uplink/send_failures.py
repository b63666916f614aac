"""Partitions that RocketMQ does not take messages of: since when, who is away, and when a topic is given up."""

from __future__ import annotations

from weakref import WeakKeyDictionary, WeakSet

from spanbridge.core.errors import SinkError, SinkMisconfigured
from spanbridge.core.partition import Partition
from spanbridge.ports import Clock, Reporter
from spanbridge.uplink import events
from spanbridge.uplink.recipe import Outgoing

_FAILING_TOPICS = 4
"""Device-named topics that may fail at a time with the whole ``reject_after``: made-up names must not add up."""


class SendFailures:
    """Knows what fails. ``reject_after`` is in seconds."""

    def __init__(self, reporter: Reporter, clock: Clock, reject_after: float) -> None:
        self.reject_after = reject_after
        self.stored_ns = 0
        """When RocketMQ last stored a batch (monotonic, ns); 0 for never."""
        self.hopeless: WeakSet[Partition[Outgoing]] = WeakSet()
        """Partitions of topics that devices named and that cannot be used."""
        self._reporter = reporter
        self._clock = clock
        self._away: WeakKeyDictionary[Partition[Outgoing], dict[str, int]] = WeakKeyDictionary()
        """Peers that were said to be away and since when (monotonic, ns), whatever became of the batch then."""

    @property
    def any(self) -> bool:
        """Whether any partition fails."""
        return bool(self._away)

    def topic_fails(self, partition: Partition[Outgoing]) -> bool:
        """Whether ``partition`` fails for its topic, so that messages to others may be stored."""
        return any(peer != "rocketmq" for peer in self._away.get(partition, ()))

    def failed(self, partition: Partition[Outgoing], batch: list[Outgoing], error: SinkError, since: int) -> None:
        """An attempt that began at ``since`` (monotonic, ns) failed."""
        self._away.setdefault(partition, {}).setdefault(peer_of(batch, error), since)

    def works(self, partition: Partition[Outgoing]) -> None:
        """RocketMQ has stored a batch of it."""
        self.stored_ns = self._clock.monotonic_ns()
        if partition.failing_ns is not None:
            partition.failing_ns = None
            self.hopeless.discard(partition)
        for peer, since in self._away.pop(partition, {}).items() if self._away else ():
            seconds = (self._clock.monotonic_ns() - since) / 1e9
            self._reporter.report(events.SendRecovered(topic=partition.topic, seconds=seconds, peer=peer))

    def gives_up(self, partition: Partition[Outgoing], batch: list[Outgoing], error: SinkError) -> bool:
        """Whether messages of topics that devices named are to be rejected: those behind them are to go on.

        Only where the topic is at fault: it says so itself, or messages to others are stored meanwhile. What concerns
        every message (credentials, TLS) is waited for, as are topics of the configuration.
        """
        if not isinstance(error, SinkMisconfigured) or not any(outgoing.recipe.by_device for outgoing in batch):
            return False
        now = self._clock.monotonic_ns()
        if partition.failing_ns is None:
            partition.failing_ns = now
        if not error.of_topic and self.stored_ns <= partition.failing_ns:
            return False
        self.hopeless.add(partition)
        allowed = self.reject_after if len(self.hopeless) <= _FAILING_TOPICS else 0.0
        return (now - partition.failing_ns) / 1e9 >= allowed


def peer_of(batch: list[Outgoing], error: SinkError) -> str:
    """Who is to be away: the cluster, or a topic that somebody has to mend.

    "" where a device made the topic up: it is no peer, and nobody is reminded of it.
    """
    if not isinstance(error, SinkMisconfigured):
        return "rocketmq"
    recipe = batch[0].recipe
    return "" if recipe.by_device else f"rocketmq, topic {recipe.partition.topic}"
