"""What a consumer has in its hands: how many messages, and since when. Read when metrics are collected."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from itertools import count
from time import perf_counter
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.util.types import AttributeValue

Labels = Mapping[str, AttributeValue]


class InFlight:
    """Messages handed to the application that it is not done with.

    Label sets that had messages once stay, with 0, so that a series does not end when there is nothing to do. Safe to
    use from several threads: every step is one dictionary operation.
    """

    def __init__(self) -> None:
        self._known: dict[frozenset[tuple[str, AttributeValue]], Labels] = {}
        self._held: dict[int, tuple[frozenset[tuple[str, AttributeValue]], float]] = {}
        self._messages: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._tokens: Final = count()

    def add(self, labels: Labels) -> int:
        """One more message; the token is for :meth:`remove`."""
        key = frozenset(labels.items())
        if key not in self._known:
            self._known[key] = labels
        token = next(self._tokens)
        self._held[token] = (key, perf_counter())
        return token

    def remove(self, token: int) -> None:
        """The application is done with it. Does nothing the second time."""
        self._held.pop(token, None)

    def add_message(self, message: object, labels: Labels) -> None:
        """One more, until :meth:`settle` or until the application has let go of the object."""
        key = id(message)
        token = self.add(labels)
        held, messages = self._held, self._messages

        def forget(reference: weakref.ref[Any]) -> None:
            held.pop(token, None)
            entry = messages.get(key)
            if entry is not None and entry[0] is reference:  # the id may belong to a new object by now
                messages.pop(key, None)

        try:
            former = messages.get(key)
            messages[key] = (weakref.ref(message, forget), token)
        except TypeError:  # nobody would say when it is gone
            held.pop(token, None)
            return
        if former is not None:
            held.pop(former[1], None)

    def settle(self, message: object) -> None:
        """The message was acknowledged."""
        entry = self._messages.get(id(message))
        if entry is not None and entry[0]() is message:
            self._messages.pop(id(message), None)
            self._held.pop(entry[1], None)

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
