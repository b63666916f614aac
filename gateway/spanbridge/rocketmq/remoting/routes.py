"""Where a topic's messages go and come from: its queues, and the brokers that hold them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spanbridge.core.errors import SinkMisconfigured, SinkUnavailable
from spanbridge.rocketmq.remoting.admin import TopicRoute
from spanbridge.rocketmq.remoting.send import WriteQueue

_NONE = "does not exist: create it (mqadmin updateTopic) or correct the route"


@dataclass(frozen=True, slots=True)
class SendRoute:
    """``topic`` is as routes name it, ``wire_topic`` with its namespace. ``masters`` are addresses by broker.

    ``queues`` are sorted by broker and number: all producers count them alike.
    """

    topic: str
    wire_topic: str
    queues: tuple[WriteQueue, ...]
    masters: Mapping[str, str]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The brokers' addresses."""
        return tuple(self.masters.values())


def read_send_route(topic: str, wire_topic: str, found: TopicRoute | None) -> SendRoute:
    """The route to send along. Brokers that have no master now take no messages, nor do those without permission.

    :raises SinkMisconfigured: there is no such topic, or no queue of it takes messages.
    :raises SinkUnavailable: the brokers that have its queues have lost their masters.
    """
    if found is None:
        raise SinkMisconfigured(
            f"topic {wire_topic!r} {_NONE}",
            reason="topic_not_found",
        )
    masters = {one.broker: one.master for one in found.brokers if one.master is not None and one.write_queues}
    queues = [
        WriteQueue(one.broker, queue)
        for one in found.brokers
        if one.broker in masters
        for queue in range(one.write_queues)
    ]
    headless = sorted(one.broker for one in found.brokers if one.master is None and one.write_queues)
    if not queues and headless:
        raise SinkUnavailable(
            f"topic {wire_topic!r}: {', '.join(headless)} has no master now, and a replica takes no messages",
            reason="no_broker",
        )
    if not queues:
        raise SinkMisconfigured(
            f"topic {wire_topic!r} has no writable queue on a master: check its permission (mqadmin updateTopicPerm) "
            "and the brokers'",
            reason="no_writable_queue",
        )
    return SendRoute(topic, wire_topic, tuple(queues), masters)


@dataclass(frozen=True, slots=True)
class ReadRoute:
    """``queues`` are pairs of broker and number, sorted. ``masters`` are addresses by broker."""

    topic: str
    wire_topic: str
    queues: tuple[tuple[str, int], ...]
    masters: Mapping[str, str]


def read_read_route(topic: str, wire_topic: str, found: TopicRoute | None) -> ReadRoute:
    """The route to receive along. A broker without a master now hands out nothing here: its replica has the same.

    :raises SinkMisconfigured: there is no such topic, or no queue of it can be read.
    """
    if found is None:
        raise SinkMisconfigured(f"topic {wire_topic!r} {_NONE}", reason="topic_not_found")
    masters = {one.broker: one.master for one in found.brokers if one.master is not None and one.read_queues}
    queues = [(one.broker, queue) for one in found.brokers if one.broker in masters for queue in range(one.read_queues)]
    if not queues:
        raise SinkMisconfigured(
            f"topic {wire_topic!r} has no readable queue on a master: check its permission (mqadmin updateTopicPerm) "
            "and the brokers'",
            reason="no_readable_queue",
        )
    return ReadRoute(topic, wire_topic, tuple(queues), masters)
