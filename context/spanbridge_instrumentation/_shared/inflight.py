"""What a consumer has in its hands: how many messages, and since when. Read when metrics are collected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from time import perf_counter
from typing import Final

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.util.types import AttributeValue

Labels = Mapping[str, AttributeValue]
_Key = frozenset[tuple[str, AttributeValue]]
_MOST_KEYS: Final = 512


class InFlight:
    """Messages handed to the application that it is not done with.

    Label sets that had messages once stay, with 0, so that a series does not end when there is nothing to do. Safe to
    use from several threads: every step is one dictionary operation.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, Labels] = {}
        self._keys: dict[int, tuple[Labels, _Key]] = {}
        self._held: dict[int, tuple[_Key, float]] = {}
        self._tokens: Final = count()

    def add(self, labels: Labels, since: float | None = None) -> int:
        """One more message; the token is for :meth:`remove`. The labels are not to be changed afterwards.

        ``since``: what ``perf_counter`` said when it was handed over, now by default.
        """
        found = self._keys.get(id(labels))
        key = self._learn(labels) if found is None or found[0] is not labels else found[1]
        token = next(self._tokens)
        self._held[token] = (key, perf_counter() if since is None else since)
        return token

    def _learn(self, labels: Labels) -> _Key:
        """The key of these labels, remembered by the object: instrumentors hand over the same ones again and again."""
        if len(self._keys) >= _MOST_KEYS:
            self._keys = {}
        key = frozenset(labels.items())
        self._keys[id(labels)] = (labels, key)
        self._known.setdefault(key, labels)
        return key

    def remove(self, token: int) -> None:
        """The application is done with it. Does nothing the second time."""
        self._held.pop(token, None)

    def observe_count(self, _options: CallbackOptions) -> Iterable[Observation]:
        """How many, by labels."""
        counts = dict.fromkeys(self._known, 0)
        for key, _ in list(self._held.values()):
            counts[key] += 1
        return [Observation(number, dict(self._known[key])) for key, number in counts.items()]

    def observe_age(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Seconds since the oldest of them was handed over, by labels; 0 where there is none."""
        now = perf_counter()
        oldest = dict.fromkeys(self._known, now)
        for key, since in list(self._held.values()):
            oldest[key] = min(oldest[key], since)
        return [Observation(now - since, dict(self._known[key])) for key, since in oldest.items()]
