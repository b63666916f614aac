"""A consumer group's subscription to a topic, and what brokers say of the group."""

from __future__ import annotations

import time
from typing import Final

from spanbridge.rocketmq.options import ConsumerOptions
from spanbridge.rocketmq.remoting.cluster import RemotingCluster, RemotingRole
from spanbridge.rocketmq.remoting.encode import wire_topic
from spanbridge.rocketmq.remoting.group import (
    POP,
    GroupSettings,
    consumer_goodbye,
    consumer_heartbeat,
    group_settings,
    subscription_data,
)
from spanbridge.rocketmq.remoting.incoming import tags_of
from spanbridge.rocketmq.remoting.pop import MOST, GroupTopic
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

    def role(self) -> RemotingRole[ReadRoute]:
        """What brokers are told of this consumer."""
        group = self.names.group
        return RemotingRole(
            read_route=read_read_route,
            heartbeat=lambda client_id: consumer_heartbeat(
                client_id,
                self.names,
                subscription_data(self.names.topic, self.expression, self.tags, self._version),
                self.consume_type,
            ),
            goodbye=lambda client_id: consumer_goodbye(client_id, group),
            reading=True,
        )

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
        self.settings = await cluster.endpoint(address).ask(group_settings(self.names.group), what)
        self._learned[address] = now + _FRESH
