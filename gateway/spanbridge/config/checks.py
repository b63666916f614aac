"""Checks of one section against another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from spanbridge.config.advice import advise_on_peers
from spanbridge.config.downlink_checks import check_downlinks
from spanbridge.config.loops import advise_on_loops
from spanbridge.config.models import Mqtt, RouteSection
from spanbridge.config.overlap import COPIES, more_specific, overlap, subscribed_filters
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, Loc, did_you_mean
from spanbridge.config.reach import advise_on_reach
from spanbridge.config.route_advice import advise_on_routes
from spanbridge.config.worker_advice import advise_on_workers
from spanbridge.core.rocketmq_rules import sanitise_topic
from spanbridge.core.routes import TopicFilter
from spanbridge.core.template import Template


def cross_check(parts: Parts) -> list[Finding]:
    """Everything that shows only when sections are seen together, and all warnings."""
    checks = (
        _broker_names,
        _client_ids,
        _sources,
        _route_names,
        _same_filters,
        _overlaps,
        _topic_collisions,
        _topic_types,
        check_downlinks,
        advise_on_peers,
        advise_on_routes,
        advise_on_reach,
        advise_on_loops,
        advise_on_workers,
    )
    return [finding for check in checks for finding in check(parts)]


def _broker_names(parts: Parts) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, broker in parts.brokers("name").items():
        if broker.name in seen:
            yield Finding(
                loc=("mqtt", index, "name"),
                message=f"mqtt[{seen[broker.name]}] is named `{broker.name}` too",
                hint="with several brokers, give each its own `name`",
            )
        seen.setdefault(broker.name, index)


def _client_ids(parts: Parts) -> Iterator[Finding]:
    known = [
        (index, name, broker, client_id)
        for index, broker in parts.brokers("url", "client_id", "publisher_client_id").items()
        for name, client_id in _connections(parts, broker)
    ]
    for (first, _, a, mine), (second, setting, b, theirs) in combinations(known, 2):
        if (a.host, a.port, mine) == (b.host, b.port, theirs):
            which = f"mqtt[{first}] uses" if first != second else "the connection that subscribes uses"
            yield Finding(
                loc=("mqtt", second, setting),
                message=f"{which} the same client id at the same broker: they would disconnect each other",
                hint=f"give each its own `{setting}` (MQTT-3.1.4-3)",
            )


def _connections(parts: Parts, broker: Mqtt) -> Iterator[tuple[str, str]]:
    """The client ids of a broker's connections, each with the setting that decides it, as far as they are known."""
    config, named = parts.config, parts.knows("name")
    if named or broker.client_id is not None:
        yield "client_id", config.client_id(broker)
    if config.downlinks_to(broker) and (named or broker.publisher_client_id or broker.client_id):
        yield "publisher_client_id", config.publisher_client_id(broker)


def _sources(parts: Parts) -> Iterator[Finding]:
    names = [broker.name for broker in parts.config.mqtt]
    if len(parts.brokers("name")) < len(names):
        return  # one that is not known may be the one meant
    routes = parts.routes("source")
    for index, route in routes.items():
        if route.source is not None and route.source not in names:
            hint = did_you_mean(route.source, names) or "known: " + ", ".join(f"`{name}`" for name in names)
            yield Finding(loc=("routes", index, "source"), message="no `[[mqtt]]` has this name", hint=hint)
    if len(routes) < len(parts.config.routes) or len(parts.downlinks("broker")) < len(parts.config.downlinks):
        return
    for index, broker in parts.brokers("subscribe").items():
        used = broker.subscribe or parts.config.downlinks_to(broker)
        if not used and not any(route.source in (None, broker.name) for route in routes.values()):
            yield Finding(
                loc=("mqtt", index),
                message="no route takes messages of this broker, and no downlink publishes there",
                hint="name it in a route's `source` or in a downlink's `broker`",
                severity="warning",
            )


def _route_names(parts: Parts) -> Iterator[Finding]:
    """Names are unique. A filter alone may stand for several routes, each of another broker."""
    seen: dict[str, tuple[int, RouteSection]] = {}
    for index, route in parts.routes("name", "filter").items():
        other, earlier = seen.setdefault(route.effective_name, (index, route))
        if other != index and (route.name is not None or earlier.name is not None):
            yield Finding(
                loc=("routes", index, "name" if route.name is not None else "filter"),
                message=f"routes[{other}] is named `{earlier.effective_name}` too",
                hint="metrics of the two could not be told apart",
            )


def _meet(a: RouteSection, b: RouteSection) -> bool:
    return a.source is None or b.source is None or a.source == b.source


def _filters(parts: Parts) -> list[tuple[int, RouteSection, TopicFilter]]:
    known = parts.routes("filter", "source")
    return [(index, route, TopicFilter.parse(route.filter)) for index, route in known.items()]


def _same_filters(parts: Parts) -> Iterator[Finding]:
    seen: dict[tuple[str, ...], list[tuple[int, RouteSection]]] = {}
    for index, route, topic_filter in _filters(parts):
        same = seen.setdefault(topic_filter.levels, [])
        for other, earlier in same:
            if _meet(route, earlier):
                yield Finding(
                    loc=("routes", index, "filter"),
                    message=f"matches exactly the same topics as routes[{other}], so nothing decides between them",
                    hint="remove one, or tell them apart by `source`",
                )
                break
        same.append((index, route))


def _overlaps(parts: Parts) -> Iterator[Finding]:
    """One warning for each route that loses topics to more specific ones."""
    known = _filters(parts)
    subscribed = [{kept.levels for kept in subscribed_filters(parts.config, broker)} for broker in parts.config.mqtt]
    losses: dict[int, list[int]] = {}
    copies: set[int] = set()
    for (i, a, first), (j, b, second) in combinations(known, 2):
        if first.levels != second.levels and _meet(a, b) and overlap(first.levels, second.levels):
            winner, loser = (i, j) if more_specific(first.levels, second.levels) else (j, i)
            losses.setdefault(loser, []).append(winner)
            if any({first.levels, second.levels} <= filters for filters in subscribed):  # neither covers the other
                copies.add(loser)
    for loser, winners in sorted(losses.items()):
        listed = ", ".join(f"routes[{winner}]" for winner in winners[:3])
        more = f" and {len(winners) - 3} more" if len(winners) > 3 else ""
        win = "which win where both match, being" if len(winners) > 1 else "which wins where both match, being"
        yield Finding(
            loc=("routes", loser, "filter"),
            message=f"overlaps {listed}{more}, {win} more specific",
            hint=COPIES if loser in copies else None,
            severity="warning",
        )


def _topic_collisions(parts: Parts) -> Iterator[Finding]:
    """Topics that are written differently and become the same in RocketMQ's alphabet."""
    seen: dict[tuple[str, ...], tuple[int, tuple[str, ...]]] = {}
    for index, route in parts.routes("topic").items():
        written, sanitised = _topic_shapes(Template.parse(route.topic))
        other, other_written = seen.setdefault(sanitised, (index, written))
        if other_written != written:
            yield Finding(
                loc=("routes", index, "topic"),
                message=f"becomes the same RocketMQ topic as routes[{other}].topic, which is written differently",
                hint="RocketMQ topics have letters, digits, `_` and `-`; everything else becomes `_`",
            )


def _topic_types(parts: Parts) -> Iterator[Finding]:
    """Routes that share a RocketMQ topic although it can have one message type only."""
    seen: dict[str, tuple[str, str]] = {}
    for index, route in parts.routes("topic", "message_group", "delivery_timestamp").items():
        if not Template.parse(route.topic).fields:
            where, kind = seen.setdefault(route.topic, (f"routes[{index}].topic", route.message_type))
            if kind != route.message_type:
                yield _two_types(("routes", index, "topic"), where, kind, route.message_type)
    for name in ("unroutable_topic", "rejected_topic"):
        topic = getattr(parts.config.uplink, name)
        where, kind = seen.get(topic, ("", "NORMAL"))
        if kind != "NORMAL" and parts.knows("uplink", name):
            yield _two_types(("uplink", name), where, kind, "NORMAL")


def _two_types(loc: Loc, where: str, kind: str, other: str) -> Finding:
    return Finding(
        loc=loc,
        message=f"gets {other} messages, and {kind} ones by {where}: RocketMQ takes one type to a topic",
        hint="use two topics",
        severity="warning",
    )


def _topic_shapes(topic: Template) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The template with its fields made anonymous: as written, and with its text in RocketMQ's alphabet."""
    anonymous = [part if isinstance(part, str) else None for part in topic.parts]
    written = tuple("{}" if part is None else part for part in anonymous)
    if not topic.fields:
        return written, written  # legal as it stands, or an error already
    return written, tuple("{}" if part is None else sanitise_topic(part) for part in anonymous)
