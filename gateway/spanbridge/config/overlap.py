"""How topic filters relate: which topics they share, which is the more specific, what they make a broker send."""

from __future__ import annotations

from spanbridge.config.models import Config, Mqtt
from spanbridge.core.routes import TopicFilter, minimal_filters

COPIES = (
    "many brokers send a message once for each subscription that matches (MQTT 5.0 section 3.3.4), and each copy is "
    "forwarded: make the filters disjoint, or add a route that covers both"
)


def subscribed_filters(config: Config, broker: Mqtt) -> list[TopicFilter]:
    """The fewest filters that bring what a broker's routes and its `subscribe` ask for."""
    wanted = [route.filter for route in config.routes_of(broker)] + broker.subscribe
    return minimal_filters(map(TopicFilter.parse, wanted))


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
