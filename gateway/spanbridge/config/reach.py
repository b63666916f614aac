"""Warnings about what the gateway is sent: extra subscriptions, and messages that no route takes."""

from __future__ import annotations

from collections.abc import Iterator

from spanbridge.config.models import Mqtt
from spanbridge.config.overlap import COPIES, overlap
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, Loc, warning
from spanbridge.core.routes import TopicFilter


def advise_on_reach(parts: Parts) -> Iterator[Finding]:
    """Subscriptions that bring nothing new or nothing useful, and a topic for messages that never come."""
    if len(parts.routes("filter", "source")) < len(parts.config.routes):
        return
    for index, broker in parts.brokers("name", "subscribe").items():
        filters = [TopicFilter.parse(route.filter) for route in parts.config.routes_of(broker)]
        yield from _subscriptions(("mqtt", index, "subscribe"), broker, filters, parts)
    yield from _catch_all(parts)


def _subscriptions(loc: Loc, broker: Mqtt, routes: list[TopicFilter], parts: Parts) -> Iterator[Finding]:
    kept = parts.config.uplink.unroutable_topic or parts.config.uplink.rejected_to
    others: list[TopicFilter] = []
    for position, text in enumerate(broker.subscribe):
        where, extra = (*loc, position), TopicFilter.parse(text)
        shared = [other for other in [*routes, *others] if overlap(other.levels, extra.levels)]
        others.append(extra)
        if any(other.covers(extra) for other in shared):
            yield warning(where, "brings nothing that other subscriptions do not bring already", show_value=True)
        elif text.startswith("$"):
            yield warning(where, "brings topics that no route takes, which are dropped", "give them a route")
        elif kept is None and parts.knows_all(("uplink",), "unroutable_topic", "rejected_topic", "rejected"):
            hint = "set `uplink.unroutable_topic`"
            yield warning(where, "brings messages that no route takes: they are dropped and counted", hint)
        elif not all(extra.covers(other) for other in shared):
            yield warning(where, "overlaps other subscriptions", COPIES, show_value=True)


def _catch_all(parts: Parts) -> Iterator[Finding]:
    brokers = parts.brokers("subscribe")
    if parts.config.uplink.unroutable_topic is None or len(brokers) < len(parts.config.mqtt):
        return
    if not any(broker.subscribe for broker in brokers.values()) and parts.knows("uplink", "unroutable_topic"):
        yield warning(
            ("uplink", "unroutable_topic"),
            "gets nothing that no route's filter brings: the gateway subscribes to those filters only",
            'to take everything else as well, set `subscribe = ["#"]` in [mqtt]',
        )
