"""Warnings about single routes."""

from __future__ import annotations

from collections.abc import Iterator

from spanbridge.config.models import Mqtt, RouteSection
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, Loc, warning
from spanbridge.core.policy import ContextPolicy
from spanbridge.core.routes import TopicFilter
from spanbridge.core.template import Field, Template

_OUTCOMES = {
    "topic": "which makes such a message unroutable",
    "message_group": "and such a message is refused: a FIFO topic takes none without a group",
    "delivery_timestamp": "and such a message is refused: a DELAY topic takes none without a time",
}
"""What follows from an empty text. Of a tag or a key, nothing does: the message goes without."""


def advise_on_routes(parts: Parts) -> Iterator[Finding]:
    """All warnings that one route, with the brokers it is for, gives cause for."""
    for index, route in enumerate(parts.config.routes):
        yield from parts.known(_advice(("routes", index), route, parts))


def _advice(loc: Loc, route: RouteSection, parts: Parts) -> Iterator[Finding]:
    if route.qos == 0:
        yield warning((*loc, "qos"), "is 0: at most once, the broker never sends again what was lost on the way")
    if route.context is ContextPolicy.PASSTHROUGH and not route.trust and parts.knows(*loc, "trust"):
        yield warning((*loc, "context"), "has nothing to pass through, since `trust` is off", show_value=True)
    if parts.knows(*loc, "filter"):
        yield from _empty(loc, route)
    brokers = parts.brokers("name", "version")
    if len(brokers) == len(parts.config.mqtt) and parts.knows(*loc, "source"):
        sources = [broker for broker in brokers.values() if route.source in (None, broker.name)]
        yield from _user_properties(loc, route, sources)


def _empty(loc: Loc, route: RouteSection) -> Iterator[Finding]:
    """Templates that a device can make come out empty, although its message needs them."""
    topic_filter = TopicFilter.parse(route.filter)
    for name, outcome in _OUTCOMES.items():
        parts = Template.parse(getattr(route, name) or "").parts
        reasons = [_emptied(part, topic_filter) for part in parts]
        if parts and all(reasons):
            field = next(part for part in parts if isinstance(part, Field))
            yield warning(
                (*loc, name),
                f"comes out empty for messages {reasons[0]}, {outcome}",
                f"give a default, as in `{{{_written(field)}|{'0' if name == 'delivery_timestamp' else 'none'}}}`",
                show_value=True,
            )


def _emptied(part: str | Field, topic_filter: TopicFilter) -> str | None:
    """Which messages make ``part`` empty; None when none does."""
    if isinstance(part, str) or part.default:
        return None
    match part.kind:
        case "user":
            return f"without the user property `{part.name}`"
        case "level":
            return f"whose level `{part.name}` is empty ({_example(topic_filter, part.name)})"
        case "index":
            index = int(part.name)
        case _:
            return None  # the whole topic has at least one character (MQTT-4.7.3-1), names of ours do as well
    if index >= len(topic_filter.levels) or topic_filter.levels[index] == "#":
        return f"whose topic has no level {index}"
    return f"whose level {index} is empty" if topic_filter.levels[index] in ("+", "") else None


def _example(topic_filter: TopicFilter, name: str) -> str:
    """A topic with that level empty, the others as they are named."""
    levels = list(topic_filter.levels)
    for index, other in topic_filter.names:
        levels[index] = "" if other == name else other
    return f"`{'/'.join(levels)}`"


def _written(field: Field) -> str:
    return {"user": f"user.{field.name}", "index": f"topic[{field.name}]"}.get(field.kind, field.name)


def _user_properties(loc: Loc, route: RouteSection, sources: list[Mqtt]) -> Iterator[Finding]:
    if not sources or any(broker.version == "5" for broker in sources):
        return
    templates = {
        (*loc, "topic"): route.topic,
        (*loc, "tag"): route.tag,
        (*loc, "message_group"): route.message_group,
        (*loc, "delivery_timestamp"): route.delivery_timestamp,
        **{(*loc, "keys", index): key for index, key in enumerate(route.keys)},
    }
    for where, text in templates.items():
        if text is not None and Template.parse(text).per_message:
            yield warning(where, "uses user properties, which MQTT 3.1.1 does not have", show_value=True)
