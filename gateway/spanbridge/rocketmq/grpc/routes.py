"""Which queues a topic has, what they take, and which proxies lead to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.ports import Reporter
from spanbridge.rocketmq.events import RouteLearned
from spanbridge.rocketmq.grpc.stubs import definition, type_name
from spanbridge.rocketmq.topic_routes import TopicRoutes

_WRITABLE = frozenset({definition.Permission.Value("WRITE"), definition.Permission.Value("READ_WRITE")})
_READABLE = frozenset({definition.Permission.Value("READ"), definition.Permission.Value("READ_WRITE")})


@dataclass(frozen=True, slots=True)
class Target:
    """Proxies (``addresses``) that all choose among the same ``queues`` writable queues."""

    addresses: tuple[str, ...]
    queues: int


@dataclass(frozen=True, slots=True)
class Origin:
    """A broker with queues to read, and the proxies that lead to it."""

    broker: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """A topic's route. ``types`` are ``MessageType`` values that every writable queue takes.

    A consumer's has ``origins`` and counts the queues that can be read.
    """

    topic: str
    targets: tuple[Target, ...]
    types: frozenset[int]
    origins: tuple[Origin, ...] = ()

    @property
    def queues(self) -> int:
        """Writable queues in all."""
        return sum(target.queues for target in self.targets)

    @property
    def type_names(self) -> list[str]:
        """The types' names, sorted."""
        return sorted(type_name(value) for value in self.types)

    def check(self, kind: int) -> None:
        """See that messages of a type can be stored.

        :raises SinkMisconfigured: they cannot; the text names topic, type and what the topic takes.
        """
        if kind in self.types:
            return
        wants = ", ".join(self.type_names) or "nothing"
        raise SinkMisconfigured(
            f"topic {self.topic!r} takes {wants} messages, not {type_name(kind)}. A message group makes a message "
            "FIFO, a delivery timestamp makes it DELAY, neither makes it NORMAL: change the route, or the topic's "
            "message.type.",
            reason="message_property_conflict_with_type",
        )


def read_origins(topic: str, response: Any, only: tuple[str, ...] | None) -> ProxyRoute:
    """A consumer's route from a ``QueryRouteResponse``: the brokers to receive from, sorted by name.

    A receive call names a broker, and gets messages of all its queues.

    :raises SinkMisconfigured: there is no queue to read.
    """
    found: dict[str, set[str]] = {}
    queues = 0
    for queue in response.message_queues:
        if queue.permission not in _READABLE or queue.broker.id:
            continue
        addresses = only or tuple(
            _join(a.host, a.port) for a in queue.broker.endpoints.addresses if a.host and 0 < a.port < 65536
        )
        if addresses:
            found.setdefault(queue.broker.name, set()).update(addresses)
            queues += 1
    if not found:
        raise SinkMisconfigured(
            f"topic {topic!r} has no readable queue at an address: check its permission (mqadmin updateTopicPerm) "
            "and the brokers'",
            reason="no_readable_queue",
        )
    origins = tuple(Origin(broker, tuple(sorted(found[broker]))) for broker in sorted(found))
    addresses = tuple(sorted(set().union(*found.values())))
    return ProxyRoute(topic, (Target(addresses, queues),), frozenset(), origins)


def read_route(topic: str, response: Any, only: tuple[str, ...] | None) -> ProxyRoute:
    """A route from a ``QueryRouteResponse``; ``only`` replaces the addresses it names.

    Brokers behind the same proxies are one target: each of those proxies sees the queues of them all
    (``RouteActivity`` answers a cluster proxy's clients with the addresses they asked with). Targets are in the order
    of their brokers' names, which outlive addresses: a group stays with its broker when that moves.

    :raises SinkMisconfigured: there is no queue to write to.
    """
    counts: dict[tuple[str, ...], int] = {}
    names: dict[tuple[str, ...], str] = {}
    types: frozenset[int] | None = None
    for queue in response.message_queues:
        # Followers (id > 0) take no messages.
        if queue.permission not in _WRITABLE or queue.broker.id:
            continue
        named = (a for a in queue.broker.endpoints.addresses if a.host and 0 < a.port < 65536)
        addresses = only or tuple(sorted(_join(a.host, a.port) for a in named))
        if not addresses:
            continue
        counts[addresses] = counts.get(addresses, 0) + 1
        names[addresses] = min(names.get(addresses, queue.broker.name), queue.broker.name)
        accepted = frozenset(queue.accept_message_types)
        types = accepted if types is None else types & accepted
    if types is None:
        raise SinkMisconfigured(
            f"topic {topic!r} has no writable queue at an address: check its permission (mqadmin updateTopicPerm) "
            "and the brokers'",
            reason="no_writable_queue",
        )
    order = sorted(counts, key=lambda addresses: (names[addresses], addresses))
    return ProxyRoute(topic, tuple(Target(addresses, counts[addresses]) for addresses in order), types)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses_of(route: ProxyRoute, target: Target | None = None) -> tuple[str, ...]:
    """The proxies that lead to a target, or to any queue of the route."""
    if target is not None:
        return target.addresses
    if len(route.targets) == 1:
        return route.targets[0].addresses
    return tuple(dict.fromkeys(address for target in route.targets for address in target.addresses))


class ProxyRoutes(TopicRoutes[ProxyRoute]):
    """Routes as proxies give them."""

    def __init__(self, query: Callable[[str], Awaitable[ProxyRoute]], reporter: Reporter) -> None:
        super().__init__(query, reporter, _learned)


def _learned(topic: str, route: ProxyRoute) -> RouteLearned:
    types = ", ".join(route.type_names)
    return RouteLearned(topic=topic, queues=route.queues, types=types, reading=bool(route.origins))
