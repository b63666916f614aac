"""Routes: MQTT topic filters with named levels, matched by a trie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from spanbridge.core.policy import Carrier, ContextPolicy
from spanbridge.core.template import FIELD_NAMES, Template

_NAMED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}\Z")


class RouteError(ValueError):
    """A filter that MQTT does not allow, or two routes that cannot stand side by side."""


@dataclass(frozen=True, slots=True)
class TopicFilter:
    """An MQTT topic filter (MQTT 5.0 section 4.7). ``names`` holds (level index, name) of its ``{named}`` levels."""

    text: str
    levels: tuple[str, ...]
    names: tuple[tuple[int, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> TopicFilter:
        """Parse a filter such as ``devices/{device}/+/state`` or ``plant/#``.

        :raises RouteError: empty, too long, NUL, a wildcard that shares its level or ends early, a name used twice.
        """
        if not text:
            raise RouteError("a topic filter is at least one character long (MQTT-4.7.3-1)")
        if "\0" in text:
            raise RouteError("a topic filter has no NUL character (MQTT-4.7.3-2)")
        if len(text.encode("utf-8", "surrogatepass")) > 65535:
            raise RouteError("a topic filter is at most 65535 bytes long (MQTT-4.7.3-3)")
        levels: list[str] = []
        names: list[tuple[int, str]] = []
        raw = text.split("/")
        for index, level in enumerate(raw):
            if named := _NAMED.match(level):
                names.append((index, named.group(1)))
                levels.append("+")
                continue
            _check_level(level, last=index == len(raw) - 1)
            levels.append(level)
        _check_names([name for _, name in names])
        return cls(text, tuple(levels), tuple(names))

    @property
    def mqtt(self) -> str:
        """The filter as a broker takes it: named levels become ``+``."""
        return "/".join(self.levels)

    def covers(self, other: TopicFilter) -> bool:
        """Whether every topic that ``other`` matches is matched by this filter too."""
        if self.levels[0] in ("+", "#") and other.levels[0].startswith("$"):
            return False
        for mine, theirs in zip_longest(self.levels, other.levels):
            if mine == "#":
                return True
            if mine is None or theirs is None or theirs == "#":
                return False
            if mine not in ("+", theirs):
                return False
        return True


def _check_level(level: str, *, last: bool) -> None:
    if "#" in level and (level != "#" or not last):
        raise RouteError("'#' stands alone in the last level (MQTT-4.7.1-1)")
    if "+" in level and level != "+":
        raise RouteError("'+' stands alone in its level (MQTT-4.7.1-2)")
    if "{" in level or "}" in level:
        raise RouteError(f"{level!r} is not a named level: write {{name}} alone between two slashes")


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RouteError(f"the level name {name!r} is used twice")
        if name in FIELD_NAMES:
            raise RouteError(f"the level name {name!r} is taken by a template field")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What happens to messages of one filter. ``source`` limits it to one MQTT connection; None means every one."""

    name: str
    filter: TopicFilter
    topic: Template
    tag: Template | None = None
    keys: tuple[Template, ...] = ()
    message_group: Template | None = None
    delivery_timestamp: Template | None = None
    context: ContextPolicy = ContextPolicy.CONTINUE
    trust: bool = True
    carriers: frozenset[Carrier] = frozenset()
    source: str | None = None
    max_payload: int | None = None
    spool: bool = True
    when_full: str = "block"

    @property
    def templates(self) -> tuple[Template, ...]:
        """The templates of this route."""
        templates = (self.topic, self.tag, *self.keys, self.message_group, self.delivery_timestamp)
        return tuple(template for template in templates if template is not None)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the user properties that its templates read: their values fix the destination as the topic does."""
        fields = (field for template in self.templates for field in template.fields)
        return tuple(dict.fromkeys(field.name for field in fields if field.kind == "user"))


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    route: Route | None = None


class RouteTable:
    """Finds the route of a topic: the most specific one wins, level by level from the left (literal, ``+``, ``#``).

    Not the first in the file: a catch-all stays a catch-all wherever it stands. Two routes of the same shape
    are an error, since nothing could decide between them.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        """Build the table.

        :raises RouteError: two of them match exactly the same topics.
        """
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for level in route.filter.levels:
            node = node.children.setdefault(level, _Node())
        if node.route is not None:
            raise RouteError(f"{route.filter.text!r} matches the same topics as {node.route.filter.text!r}")
        node.route = route

    def find(self, levels: Sequence[str]) -> Route | None:
        """The route of a topic, given as its levels, or None."""
        return self._find(self._root, levels, 0)

    def _find(self, node: _Node, levels: Sequence[str], index: int) -> Route | None:
        # '#' also matches its parent level (MQTT 5.0 section 4.7.1.2).
        wild = index > 0 or not levels[0].startswith("$")  # MQTT-4.7.2-1
        rest = node.children.get("#") if wild else None
        if index == len(levels):
            return node.route or (rest.route if rest else None)
        literal = node.children.get(levels[index])
        found = self._find(literal, levels, index + 1) if literal else None
        single = node.children.get("+") if wild else None
        if found is None and single is not None:
            found = self._find(single, levels, index + 1)
        return found or (rest.route if rest else None)


def minimal_filters(filters: Iterable[TopicFilter]) -> list[TopicFilter]:
    """Leave out filters that another one covers, keeping order.

    A broker may deliver one copy per overlapping subscription (MQTT 5.0 section 3.3.4), and each would be forwarded.
    """
    kept: list[TopicFilter] = []
    for candidate in filters:
        if any(other.covers(candidate) for other in kept):
            continue
        kept = [other for other in kept if not candidate.covers(other)]
        kept.append(candidate)
    return kept
