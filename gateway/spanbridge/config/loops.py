"""Routes and downlinks that feed each other: what a downlink publishes, a route may take up again.

The gateway's own messages reach it because it publishes on another connection than it subscribes on, so that no-local
does not keep them away. On MQTT 5 the user property ``spanbridge.path`` tells that a message was here; 3.1.1 has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spanbridge.config.downlink_checks import with_brokers
from spanbridge.config.models import DownlinkSection, RouteSection
from spanbridge.config.parts import Parts
from spanbridge.config.problems import Finding, warning
from spanbridge.core.downlinks import ContextForm
from spanbridge.core.policy import Carrier
from spanbridge.core.rocketmq_rules import sanitise_topic
from spanbridge.core.routes import TopicFilter
from spanbridge.core.template import DOWN, Template

_DISJOINT = "make `mqtt_topic` and the route's filter disjoint"


@dataclass(frozen=True, slots=True)
class _Feed:
    """A downlink whose messages a route takes; ``then`` are the downlinks that may bring these down again."""

    route: int
    then: tuple[int, ...]
    marked: bool  # the message tells that it was here (MQTT 5)


def advise_on_loops(parts: Parts) -> Iterator[Finding]:
    """One finding for each downlink whose messages come up again."""
    feeds = _feeds(parts)
    for index, found in feeds.items():
        loc = ("downlinks", index, "mqtt_topic")
        unmarked = _way_back(index, feeds, marked=False)
        around = unmarked or _way_back(index, feeds, marked=True)
        takes = f"routes[{found[0].route}].filter takes what it publishes"
        if unmarked is not None:
            yield Finding(
                loc=loc,
                message=f"{_takes(unmarked)}, into a topic that comes down again: each message goes round for ever",
                hint=f"{_DISJOINT}: MQTT 3.1.1 has no user properties, so no `spanbridge.path` tells a loop",
            )
        elif around is not None:
            message = f"{_takes(around)}, into a topic that comes down again: each is refused as a loop"
            yield warning(loc, message, f"{_DISJOINT}; `spanbridge.path` ends the loop", show_value=True)
        elif all(feed.marked for feed in found):
            message = f"{takes}: each message comes up again, and is refused as one that was here"
            yield warning(loc, message, _DISJOINT, show_value=True)
        else:
            message = f"{takes}: each message goes to RocketMQ again, by that route"
            yield warning(loc, message, _DISJOINT, show_value=True)


def _takes(feed: _Feed) -> str:
    return f"routes[{feed.route}].filter takes what it publishes"


def _feeds(parts: Parts) -> dict[int, list[_Feed]]:
    routes = parts.routes("filter", "topic", "source", "carriers")
    downlinks = parts.downlinks("topic", "mqtt_topic", "carrier")
    feeds: dict[int, list[_Feed]] = {}
    for index, (downlink, broker) in with_brokers(parts).items():
        if index not in downlinks:
            continue
        for position, route in routes.items():
            if route.source in (None, broker.name) and _takes_up(route, downlink):
                then = tuple(other for other, one in downlinks.items() if _may_be(route.topic, one.topic))
                feeds.setdefault(index, []).append(_Feed(position, then, marked=broker.version == "5"))
    return feeds


def _way_back(start: int, feeds: Mapping[int, list[_Feed]], *, marked: bool) -> _Feed | None:
    """The route by which messages of a downlink start their way back to it; None when there is no way.

    Without ``marked``, only ways on which nothing tells that a message was here.
    """
    for first in feeds[start]:
        seen: set[int] = set()
        ahead = list(first.then) if marked or not first.marked else []
        while ahead:
            here = ahead.pop()
            if here == start:
                return first
            if here not in seen:
                seen.add(here)
                ahead += [one for feed in feeds.get(here, ()) if marked or not feed.marked for one in feed.then]
    return None


def _takes_up(route: RouteSection, downlink: DownlinkSection) -> bool:
    """Whether a topic that a downlink may publish to matches a route's filter."""
    levels = TopicFilter.parse(route.filter).levels
    if len(Template.parse(downlink.mqtt_topic, DOWN).parts) == 1 and downlink.mqtt_topic.startswith("{"):
        return True  # the message brings the whole topic
    written = _levels(downlink.mqtt_topic)
    if downlink.carrier is ContextForm.TOPIC_SUFFIX and Carrier.TOPIC_SUFFIX not in route.carriers:
        written = [*written, re.escape("~tp"), ".*"]
    return _matches(levels, written)


def _levels(template: str) -> list[str]:
    """Each level as a regular expression: a field may be any text within its level."""
    parts = Template.parse(template, DOWN).parts
    return "".join(re.escape(part) if isinstance(part, str) else ".*" for part in parts).split("/")


def _matches(levels: tuple[str, ...], written: list[str]) -> bool:
    """MQTT 5.0 section 4.7: ``+`` is a level, ``#`` the rest and the level above."""
    if levels[0] in ("+", "#") and written[0].startswith(re.escape("$")):
        return False  # MQTT-4.7.2-1
    for position, level in enumerate(levels):
        if level == "#":
            return True
        if position == len(written):
            return False
        if level != "+" and re.fullmatch(written[position], level) is None:
            return False
    return len(levels) == len(written)


def _may_be(template: str, topic: str) -> bool:
    """Whether a route's RocketMQ topic can come out as ``topic``."""
    parsed = Template.parse(template)
    if not parsed.fields:
        return template == topic
    pattern = "".join(re.escape(sanitise_topic(part)) if isinstance(part, str) else ".*" for part in parsed.parts)
    return re.fullmatch(pattern, topic) is not None
