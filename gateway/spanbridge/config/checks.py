"""Checks of one section against another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from spanbridge.config.advice import advise
from spanbridge.config.models import Route
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, did_you_mean
from spanbridge.core.rocketmq_rules import sanitise_topic
from spanbridge.core.routes import TopicFilter, minimal_filters
from spanbridge.core.template import Template

_COPIES = (
    "many brokers send a message once for each subscription that matches (MQTT 5.0 section 3.3.4), and each copy is "
    "forwarded: make the filters disjoint, or add a route that covers both"
)


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
        advise,
    )
    return [finding for check in checks for finding in check(parts)]


def _broker_names(parts: Parts) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, broker in parts.brokers.items():
        if broker.name in seen:
            yield Finding(
                loc=("mqtt", index, "name"),
                message=f"mqtt[{seen[broker.name]}] is named `{broker.name}` too",
                hint="with several brokers, give each its own `name`",
            )
        seen.setdefault(broker.name, index)


def _client_ids(parts: Parts) -> Iterator[Finding]:
    for (first, a), (second, b) in combinations(parts.brokers.items(), 2):
        same_broker = (a.host, a.port) == (b.host, b.port)
        if same_broker and (a.client_id or parts.name) == (b.client_id or parts.name):
            yield Finding(
                loc=("mqtt", second, "client_id"),
                message=f"mqtt[{first}] uses the same client id at the same broker: they would disconnect each other",
                hint="give each its own `client_id` (MQTT-3.1.4-3)",
            )


def _sources(parts: Parts) -> Iterator[Finding]:
    names = [broker.name for broker in parts.brokers.values()]
    for index, route in parts.routes.items():
        # A broker that is itself invalid may be the one meant; its own error comes first.
        if route.source is not None and route.source not in names and parts.complete:
            hint = did_you_mean(route.source, names) or "known: " + ", ".join(f"`{name}`" for name in names)
            yield Finding(loc=("routes", index, "source"), message="no `[[mqtt]]` has this name", hint=hint)
    if parts.complete:
        for index, broker in parts.brokers.items():
            if not any(route.source in (None, broker.name) for route in parts.routes.values()):
                yield Finding(
                    loc=("mqtt", index),
                    message="no route takes messages of this broker",
                    hint="name it in a route's `source`",
                    severity="warning",
                )


def _route_names(parts: Parts) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, route in parts.routes.items():
        if route.name is None:
            continue
        if route.name in seen:
            yield Finding(
                loc=("routes", index, "name"),
                message=f"routes[{seen[route.name]}] is named `{route.name}` too",
                hint="metrics of the two could not be told apart",
            )
        seen.setdefault(route.name, index)


def _meet(a: Route, b: Route) -> bool:
    return a.source is None or b.source is None or a.source == b.source


def _filters(parts: Parts) -> list[tuple[int, Route, TopicFilter]]:
    return [(index, route, TopicFilter.parse(route.filter)) for index, route in parts.routes.items()]


def _same_filters(parts: Parts) -> Iterator[Finding]:
    seen: dict[tuple[str, ...], list[tuple[int, Route]]] = {}
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
    filters = _filters(parts)
    subscribed = {kept.levels for kept in minimal_filters(topic_filter for _, _, topic_filter in filters)}
    losses: dict[int, list[int]] = {}
    copies: set[int] = set()
    for (i, a, first), (j, b, second) in combinations(filters, 2):
        if first.levels != second.levels and _meet(a, b) and overlap(first.levels, second.levels):
            winner, loser = (i, j) if more_specific(first.levels, second.levels) else (j, i)
            losses.setdefault(loser, []).append(winner)
            if {first.levels, second.levels} <= subscribed:  # neither covers the other
                copies.add(loser)
    for loser, winners in sorted(losses.items()):
        listed = ", ".join(f"routes[{winner}]" for winner in winners[:3])
        more = f" and {len(winners) - 3} more" if len(winners) > 3 else ""
        yield Finding(
            loc=("routes", loser, "filter"),
            message=f"overlaps {listed}{more}, which win where both match, being more specific",
            hint=_COPIES if loser in copies else None,
            severity="warning",
        )


def _topic_collisions(parts: Parts) -> Iterator[Finding]:
    """Topics that are written differently and become the same in RocketMQ's alphabet."""
    seen: dict[tuple[str, ...], tuple[int, tuple[str, ...]]] = {}
    for index, route in parts.routes.items():
        written, sanitised = _topic_shapes(Template.parse(route.topic))
        other, other_written = seen.setdefault(sanitised, (index, written))
        if other_written != written:
            yield Finding(
                loc=("routes", index, "topic"),
                message=f"becomes the same RocketMQ topic as routes[{other}].topic, which is written differently",
                hint="RocketMQ topics have letters, digits, `_` and `-`; everything else becomes `_`",
            )


def _topic_shapes(topic: Template) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The template with its fields made anonymous: as written, and with its text in RocketMQ's alphabet."""
    anonymous = [part if isinstance(part, str) else None for part in topic.parts]
    written = tuple("{}" if part is None else part for part in anonymous)
    if not topic.fields:
        return written, written  # legal as it stands, or an error already
    return written, tuple("{}" if part is None else sanitise_topic(part) for part in anonymous)


def overlap(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether a topic exists that both filters match (MQTT 5.0 section 4.7)."""
    if {a[0], b[0]} & {"+", "#"} and (a[0].startswith("$") or b[0].startswith("$")):
        return False  # MQTT-4.7.2-1
    for mine, theirs in zip(a, b, strict=False):
        if "#" in (mine, theirs):
            return True
        if mine != theirs and "+" not in (mine, theirs):
            return False
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return len(a) == len(b) or longer[len(shorter) :] == ("#",)


_RANK = {"+": 1, "#": 2}


def more_specific(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether ``a`` beats ``b`` where both match: level by level from the left, literal before `+` before `#`."""
    for mine, theirs in zip(a, b, strict=False):
        if _RANK.get(mine, 0) != _RANK.get(theirs, 0):
            return _RANK.get(mine, 0) < _RANK.get(theirs, 0)
    return len(a) < len(b)  # `a/b` before `a/b/#`
