"""From MQTT topics to templates of low cardinality.

A topic may hold device names, so it is an attribute of spans; names of spans and labels of metrics have its template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from paho.mqtt.matcher import MQTTMatcher

from spanbridge_instrumentation._shared.safety import call_hook, warn_once

from .levels import TopicLevels

TopicTemplate = Callable[[str], str | None]
"""A user's own mapping: a topic to its template, None when it has none."""

MAX_FILTERS = 64
"""Filters that a process may turn into templates by subscribing: names and labels stay this few."""

_MAX_CACHED = 4096


class Templates:
    """Finds a topic's template: by the user's function, else the user's filters, else what was subscribed to, else by
    the topic's own levels.

    Of what was subscribed to only filters with a wildcard count, since one without is a raw topic; levels that name one
    thing become ``+`` in them. Of several filters that match, the most specific wins.
    """

    def __init__(self, filters: Iterable[str] = (), function: TopicTemplate | None = None) -> None:
        self._function = function
        self._given = _matcher(filters)
        self._learnt = _matcher(())
        self._known: set[str] = set()
        self._levels = TopicLevels()
        self._changes = 0
        self._learnings = 0
        self._sent: dict[str, str | None] = {}
        self._received: dict[str, str | None] = {}

    def know(self, client_id: str) -> None:
        """Take the identifier of a client: topics that hold it are told apart by nothing else."""
        self._levels.know(client_id)

    def learn(self, topic_filter: str) -> None:
        """Take a filter that the application subscribes to, or has a callback for, as a template."""
        plain = _without_share(topic_filter)
        if plain in self._known or not ("+" in plain or "#" in plain):
            return
        if len(self._known) >= MAX_FILTERS:
            warn_once("templates", "more than %d topic filters: further ones are no templates", MAX_FILTERS)
            return
        self._known.add(plain)
        self._learnings += 1
        self._learn_again()

    @property
    def generation(self) -> int:
        """Grows when a topic's template may be another than it was."""
        return self._learnings + self._levels.changes

    def of_sent(self, topic: str) -> str | None:
        """The template of a topic that is published to. Subscriptions say nothing of it."""
        self._keep_up()
        return _cached(self._sent, topic, self._own_or_made)

    def of_received(self, topic: str) -> str | None:
        """The template of a topic that a message arrived on."""
        self._keep_up()
        return _cached(self._received, topic, self._own_or_learnt)

    def _own(self, topic: str) -> str | None:
        found = call_hook("topic_template", self._function, topic)
        return found if isinstance(found, str) else _first(self._given, topic)

    def _own_or_made(self, topic: str) -> str | None:
        return self._own(topic) or self._levels.template(topic)

    def _own_or_learnt(self, topic: str) -> str | None:
        return self._own(topic) or _first(self._learnt, topic) or self._levels.template(topic)

    def _keep_up(self) -> None:
        """A level turned out to vary: what was said with a value of it holds no more."""
        if self._changes != self._levels.changes:
            self._learn_again()
            self._sent = {}

    def _learn_again(self) -> None:
        # A new matcher and a copy of the set: other threads may be reading the one, and adding to the other.
        self._changes = self._levels.changes
        self._learnt = _matcher([self._levels.generalised(each) for each in tuple(self._known)])
        self._received = {}


def filters_of(subscription: object) -> list[str]:
    """The filters in the first argument of ``Client.subscribe``: a string, a pair, or a list of pairs."""
    if isinstance(subscription, str):
        return [subscription]
    if isinstance(subscription, tuple) and subscription and isinstance(subscription[0], str):
        return [subscription[0]]
    if isinstance(subscription, list):
        return [name for each in subscription for name in filters_of(each)]
    return []


def _without_share(topic_filter: str) -> str:
    """``$share/group/filter`` names the subscription, not the topics (MQTT 5.0 section 4.8.2)."""
    if topic_filter.startswith("$share/"):
        return topic_filter.split("/", 2)[-1]
    return topic_filter


def _cached(cache: dict[str, str | None], topic: str, find: TopicTemplate) -> str | None:
    if topic in cache:
        return cache[topic]
    found = find(topic)
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    cache[topic] = found
    return found


def _matcher(filters: Iterable[str]) -> MQTTMatcher:
    matcher = MQTTMatcher()  # type: ignore[no-untyped-call]
    for each in filters:
        matcher[each] = each
    return matcher


def _first(matcher: MQTTMatcher, topic: str) -> str | None:
    found: str | None = next(iter(matcher.iter_match(topic)), None)  # type: ignore[no-untyped-call]
    return found
