"""Which levels of MQTT topics name a kind of message, and which a single thing: those become ``+``.

Nothing can know this for certain. A level is ``+`` at once when it looks like the name of one thing, and later when it
turns out to vary. docs/instrumentation-paho.md says what follows from that.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

MAX_VALUES: Final = 8
"""Values of one level that are kept apart. With one more the level is ``+``."""

MAX_TEMPLATES: Final = 64
"""Templates that a process makes of topics on its own. A topic that would be one more has none."""

_MAX_PLACES: Final = 256
_MAX_LEVELS: Final = 8
_MAX_LENGTH: Final = 32
_MAX_CLIENT_IDS: Final = 64
_DIGITS: Final = frozenset("0123456789")

Levels = tuple[str, ...]


class TopicLevels:
    """Learns from the topics and filters that it is asked about. Bounded in memory; threads may share it."""

    def __init__(self) -> None:
        self.changes = 0
        """Grows when an answer that was given may be another now."""
        self._values: dict[Levels, set[str]] = {}
        self._templates: set[str] = set()
        self._client_ids: set[str] = set()
        self._lock = Lock()

    def know(self, client_id: str) -> None:
        """Take a client identifier: a level that is equal to it names one thing."""
        with self._lock:
            if client_id not in self._client_ids and len(self._client_ids) < _MAX_CLIENT_IDS:
                self._client_ids.add(client_id)
                self.changes += 1

    def template(self, topic: str) -> str | None:
        """The template of a topic; None when there are too many already."""
        with self._lock:
            found = self._generalised(topic)
            if found not in self._templates:
                if len(self._templates) >= MAX_TEMPLATES:
                    return None
                self._templates.add(found)
            return found

    def generalised(self, topic_filter: str) -> str:
        """The filter with ``+`` for the levels that name one thing. It takes all topics that it took before."""
        with self._lock:
            return self._generalised(topic_filter)

    def _generalised(self, topic: str) -> str:
        parts = topic.split("/", _MAX_LEVELS)
        if len(parts) > _MAX_LEVELS:
            parts[_MAX_LEVELS] = "#"
        levels: Levels = ()
        for part in parts:
            levels = (*levels, part if part in ("+", "#") else self._level(levels, part))
        return "/".join(levels)

    def _level(self, above: Levels, value: str) -> str:
        if len(value) > _MAX_LENGTH or not _DIGITS.isdisjoint(value) or value in self._client_ids:
            return "+"
        values = self._values.get(above)
        if values is None:
            if len(self._values) >= _MAX_PLACES:
                return "+"
            values = self._values[above] = set()
        if value in values:
            return value
        if "+" in values:
            return "+"
        if len(values) >= MAX_VALUES:
            self._give_up(above)
            return "+"
        values.add(value)
        return value

    def _give_up(self, above: Levels) -> None:
        """The level varies. What was learnt below its values is forgotten, and learnt again for all of them."""
        for place in [place for place in self._values if place[: len(above)] == above]:
            del self._values[place]
        self._values[above] = {"+"}
        self.changes += 1
