"""Topics and consumer groups of the devstack's RocketMQ, made over the remoting protocol.

The tools that come with RocketMQ start a JVM for each command, about two seconds; this takes milliseconds.
"""

from __future__ import annotations

from typing import TypeVar

from spanbridge.devstack.errors import ServiceError
from spanbridge.devstack.ports import LOOPBACK
from spanbridge.rocketmq.remoting import admin
from spanbridge.rocketmq.remoting.blocking import ask_once
from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.errors import RemotingError
from spanbridge.rocketmq.remoting.frame import AclKeys

T = TypeVar("T")


def ask(port: int, call: Call[T], keys: AclKeys | None = None) -> T:
    """Ask the server on this remoting port, on a connection of its own; signed where there are ``keys``.

    Raises:
        ServiceError: nobody answered within a few seconds, or the server refused.
    """
    try:
        return ask_once(f"{LOOPBACK}:{port}", call, keys=keys)
    except RemotingError as error:
        raise ServiceError(str(error)) from error


def create_topic(port: int, name: str, *, message_type: str, queues: int, keys: AclKeys | None = None) -> None:
    """Create or change a topic on the broker whose remoting port is ``port``.

    Raises:
        ServiceError: the broker refused, or did not answer.
    """
    ask(port, admin.create_topic(name, message_type=message_type, queues=queues), keys)


def create_group(port: int, name: str, *, fifo: bool, max_attempts: int = 16, keys: AclKeys | None = None) -> None:
    """Create or change a consumer group; ``fifo`` delivers each message group's messages in order.

    Raises:
        ServiceError: the broker refused, or did not answer.
    """
    ask(port, admin.create_group(name, orderly=fifo, max_attempts=max_attempts), keys)


def has_route(port: int, topic: str) -> bool:
    """Whether the name server on ``port`` knows a route for the topic."""
    return ask(port, admin.topic_route(topic)) is not None


def queues(port: int, topic: str) -> int:
    """How many queues of the topic can be read, by the name server on ``port``; 0 where there is no such topic."""
    route = ask(port, admin.topic_route(topic))
    return 0 if route is None else sum(broker.read_queues for broker in route.brokers)
