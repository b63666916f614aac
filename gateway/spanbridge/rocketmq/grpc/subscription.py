"""What a consumer tells the proxies of itself, and what they answer: batch size, pauses, whether order matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spanbridge.rocketmq.grpc.session import settings_command
from spanbridge.rocketmq.grpc.stubs import definition
from spanbridge.rocketmq.options import ConsumerOptions

CLIENT_TYPE = definition.ClientType.SIMPLE_CONSUMER
SHORTEST_POLL = 5.0
"""Seconds; what is shorter the proxy refuses (``grpcClientConsumerMinLongPollingTimeoutMillis``)."""
_LONGEST_POLL = 20.0
_MOST = 32
_LONGEST_PAUSE = 2 * 3600.0


class GroupSubscription:
    """A group's subscription to a topic. ``fifo`` is a setting of the group's at the brokers, not of ours."""

    def __init__(self, options: ConsumerOptions) -> None:
        self._options = options
        namespace = options.cluster.namespace
        self.group = definition.Resource(name=options.group, resource_namespace=namespace)
        self.topic = definition.Resource(name=options.topic, resource_namespace=namespace)
        kind = definition.FilterType.SQL if options.sql else definition.FilterType.TAG
        self.filter = definition.FilterExpression(type=kind, expression=options.filter)
        self.fifo = False
        self.batch = min(options.batch, _MOST)
        self.long_poll = min(max(options.long_poll, SHORTEST_POLL), _LONGEST_POLL)
        self.max_attempts = 16
        self._pauses: Sequence[float] = ()
        self._exponential = (1.0, _LONGEST_PAUSE, 2.0)

    def command(self, addresses: Sequence[str]) -> Any:
        """``TelemetryCommand`` with the settings."""
        command = settings_command(self._options.cluster, addresses, CLIENT_TYPE)
        subscription = command.settings.subscription
        subscription.group.CopyFrom(self.group)
        subscription.receive_batch_size = self.batch
        subscription.long_polling_timeout.FromMilliseconds(int(self.long_poll * 1000))
        subscription.subscriptions.add(topic=self.topic, expression=self.filter)
        return command

    def take(self, settings: Any) -> None:
        """Take over what the server prescribes."""
        subscription, policy = settings.subscription, settings.backoff_policy
        self.fifo = subscription.fifo
        if subscription.receive_batch_size > 0:
            self.batch = min(self._options.batch, subscription.receive_batch_size, _MOST)
        prescribed = subscription.long_polling_timeout.ToMilliseconds() / 1000
        if prescribed > 0:
            self.long_poll = max(SHORTEST_POLL, min(self._options.long_poll, prescribed, _LONGEST_POLL))
        if policy.max_attempts > 0:
            self.max_attempts = policy.max_attempts
        self._pauses = [pause.ToMilliseconds() / 1000 for pause in policy.customized_backoff.next]
        growing = policy.exponential_backoff
        initial, maximum = growing.initial.ToMilliseconds() / 1000, growing.max.ToMilliseconds() / 1000
        if 0 < initial <= maximum:
            self._exponential = (initial, maximum, min(max(1.0, growing.multiplier), 16.0))

    def pause(self, attempt: int) -> float:
        """Seconds after which a message that failed for the ``attempt``-th time is to come again."""
        if self._pauses:
            pause = self._pauses[min(attempt, len(self._pauses)) - 1]
        else:
            initial, maximum, factor = self._exponential
            pause = min(maximum, initial * factor ** min(attempt - 1, 64))
        return min(max(pause, 0.0), _LONGEST_PAUSE)
