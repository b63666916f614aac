"""A consumer group's subscription to a topic, and what brokers say of the group."""

from __future__ import annotations

import time
from typing import Final

from spanbridge.core.errors import SinkError
from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.remoting.admin import all_groups
from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.client import OnRequest
from spanbridge.rocketmq.remoting.cluster import RemotingCluster, RemotingRole
from spanbridge.rocketmq.remoting.encode import wire_topic
from spanbridge.rocketmq.remoting.group import (
    POP,
    PULL,
    GroupSettings,
    consumer_goodbye,
    consumer_heartbeat,
    group_settings,
    subscription_data,
)
from spanbridge.rocketmq.remoting.incoming import tags_of
from spanbridge.rocketmq.remoting.pop import MOST, GroupTopic
from spanbridge.rocketmq.remoting.pulling import retry_topic
from spanbridge.rocketmq.remoting.routes import ReadRoute, read_read_route

_FRESH: Final = 60.0
"""Seconds between looks at a group's settings."""


class RemotingSubscription:
    """``settings`` are those that a broker gave last; that a group receives in order is one of them.

    ``consume_type`` is what brokers are told of how the group receives.
    """

    def __init__(self, options: ConsumerOptions) -> None:
        namespace = options.cluster.namespace
        group = f"{namespace}%{options.group}" if namespace else options.group
        self.names = GroupTopic(group, wire_topic(namespace, options.topic))
        self.topic = options.topic
        self.group = options.group
        self.expression = options.filter
        self.kind = "SQL92" if options.sql else "TAG"
        self.tags = None if options.sql else tags_of(options.filter)
        self.batch = min(options.batch, MOST)
        self.settings = GroupSettings()
        self.consume_type = POP
        self._version = time.time_ns() // 1_000_000
        self._learned: dict[str, float] = {}

    def role(self, on_request: OnRequest) -> RemotingRole[ReadRoute]:
        """What brokers are told of this consumer."""
        group = self.names.group
        return RemotingRole(
            read_route=read_read_route,
            heartbeat=self._heartbeat,
            goodbye=lambda client_id: consumer_goodbye(client_id, group),
            reading=True,
            on_request=on_request,
        )

    def _heartbeat(self, client_id: str) -> Call[int]:
        subscriptions = [subscription_data(self.names.topic, self.expression, self.tags, self._version)]
        if self.consume_type == PULL:
            subscriptions.append(subscription_data(retry_topic(self.names), "*", frozenset(), self._version))
        return consumer_heartbeat(client_id, self.names, subscriptions, self.consume_type)

    def wants(self, tag: str | None) -> bool:
        """Whether a message of this tag is subscribed to. Brokers compare hashes of tags."""
        return not self.tags or tag in self.tags

    async def learn(self, cluster: RemotingCluster[ReadRoute], address: str) -> None:
        """Have a broker's settings of the group, if they are not fresh.

        :raises SinkError: it has no such group, or does not say.
        """
        now = time.monotonic()
        if now < self._learned.get(address, 0.0):
            return
        what = f"settings of group {self.group!r}"
        endpoint = cluster.endpoint(address)
        try:
            self.settings = await endpoint.ask(group_settings(self.names.group), what)
        except SinkError as error:
            if error.reason != "unimplemented":
                raise
            # RocketMQ 4 tells of all groups at once. It makes one that is missing when it takes our heartbeat.
            group = (await endpoint.ask(all_groups(), what)).get(self.names.group)
            self.settings = GroupSettings() if group is None else GroupSettings(max_attempts=max(0, group.retries) + 1)
        self._learned[address] = now + _FRESH
