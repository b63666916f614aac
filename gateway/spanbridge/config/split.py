"""How workers divide the subscriptions of a gateway. It only decides; ``spanbridge check`` shows it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from spanbridge.config.models import Config, Mqtt, RouteSection
from spanbridge.config.overlap import overlap
from spanbridge.core.policy import Carrier
from spanbridge.core.routes import TopicFilter, minimal_filters
from spanbridge_context import suffix_filter


@dataclass(frozen=True, slots=True)
class Portion:
    """Subscriptions of one broker that stay together, and the worker that takes them; None: all, by ``$share``.

    ``ordered``: a route among them has a message group. ``overlapping``: a topic may match several of the filters, so
    that two workers would each get a copy.
    """

    broker: str
    filters: tuple[str, ...]
    worker: int | None
    ordered: bool = False
    overlapping: bool = False


def split(config: Config) -> list[Portion]:
    """The portions of all brokers, in the order of the file. Each filter that is subscribed to is in one of them.

    A portion that is one worker's goes by a hash of its filters, so that it stays where it is when others come and go;
    and none gets more than its share of them, since a hash alone deals few portions badly.
    """
    found = [portion for broker in config.mqtt for portion in _portions(config, broker)]
    alone = sorted((one for one in found if one.worker is not None), key=_key)
    most = -(-len(alone) // config.gateway.workers)
    load: Counter[int] = Counter()
    taken: dict[Portion, int] = {}
    for one in alone:
        worker = next(number for number in _preferred(one, config.gateway.workers) if load[number] < most)
        load[worker] += 1
        taken[one] = worker
    return [Portion(one.broker, one.filters, taken.get(one), one.ordered, one.overlapping) for one in found]


def share_group(config: Config, broker: Mqtt) -> str:
    """The group under which workers share a broker's messages: the gateway's name, unless the file has another."""
    return broker.share or config.name


def worker_directory(spool: Path, number: int) -> Path:
    """Where a worker keeps its part of the spool: a directory has one process's messages."""
    return spool / f"worker-{number}"


def _key(portion: Portion) -> bytes:
    return _hash(portion.broker, *portion.filters)


def _preferred(portion: Portion, workers: int) -> list[int]:
    """The workers, the one that is to take the portion first (rendezvous hashing)."""
    return sorted(range(1, workers + 1), key=lambda number: _hash(str(number), portion.broker, *portion.filters))


def _hash(*texts: str) -> bytes:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()


def _portions(config: Config, broker: Mqtt) -> Iterator[Portion]:
    routes = config.routes_of(broker)
    forms = {route.filter: _forms(route) for route in routes}
    extra = [TopicFilter.parse(text) for text in broker.subscribe]
    kept = minimal_filters([*extra, *(form for found in forms.values() for form in found)])
    together = _together(kept, list(forms.values()))
    for members in together:
        filters = [kept[index] for index in members]
        ordered = any(
            route.message_group is not None and any(one.covers(form) for one in filters for form in forms[route.filter])
            for route in routes
        )
        overlapping = any(overlap(a.levels, b.levels) for a, b in combinations(filters, 2))
        alone = _alone(config, broker, ordered=ordered, overlapping=overlapping)
        yield Portion(broker.name, tuple(one.mqtt for one in filters), 0 if alone else None, ordered, overlapping)


def _forms(route: RouteSection) -> list[TopicFilter]:
    """A route's filter, and that of topics with a trace context at their end."""
    parsed = TopicFilter.parse(route.filter)
    suffixed = suffix_filter(parsed.mqtt) if Carrier.TOPIC_SUFFIX in route.carriers else None
    return [parsed] if suffixed is None else [parsed, TopicFilter.parse(suffixed)]


def _alone(config: Config, broker: Mqtt, *, ordered: bool, overlapping: bool) -> bool:
    """Whether one worker is to take a portion."""
    if config.gateway.split != "auto":
        return config.gateway.split == "filters"
    return broker.share is None and (ordered or overlapping or broker.version == "3.1.1")


def _together(filters: list[TopicFilter], forms: list[list[TopicFilter]]) -> list[list[int]]:
    """Positions of filters that belong together: those that overlap, and those that bring the forms of one route."""
    root = list(range(len(filters)))

    def join(a: int, b: int) -> None:
        low, high = sorted((root[a], root[b]))
        root[:] = [low if one == high else one for one in root]

    for a, b in combinations(range(len(filters)), 2):
        if overlap(filters[a].levels, filters[b].levels):
            join(a, b)
    for of_route in forms:
        bringing = [index for form in of_route for index, one in enumerate(filters) if one.covers(form)]
        for index in bringing[1:]:
            join(bringing[0], index)
    return [[index for index, one in enumerate(root) if one == first] for first in sorted(set(root))]
