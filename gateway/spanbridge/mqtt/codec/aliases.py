"""Topic aliases that we give (MQTT 5.0 section 3.3.2.3.4): two bytes instead of a topic that is sent again and again.

A topic gets an alias when it comes a second time while it is still remembered; as many topics are remembered as there
are aliases. So a fleet of ten thousand topics that take turns does not pay three bytes a message for aliases that are
never used again. When all are given, one that was not used since the hand passed it is given away (the clock algorithm,
which comes close to least recently used and costs a hit one store).
"""

from __future__ import annotations

from typing import ClassVar


class Aliases:
    """The aliases of one connection. ``topic`` is a topic name with its length in front."""

    SHORTEST: ClassVar[int] = 5
    """Bytes. An alias replaces a topic by nothing and three bytes of a property: shorter ones are not worth it."""

    __slots__ = ("_codes", "_hand", "_maximum", "_numbers", "_seen", "_topics", "_used")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._numbers: dict[bytes, int] = {}
        self._topics: list[bytes] = []
        self._codes: list[bytes] = []
        self._used: list[bool] = []
        self._seen: dict[bytes, None] = {}
        self._hand = 0

    def known(self, topic: bytes) -> bytes | None:
        """The property that stands for the topic; None when it has no alias."""
        number = self._numbers.get(topic)
        if number is None:
            return None
        self._used[number] = True
        return self._codes[number]

    def wanted(self, topic: bytes) -> bytes | None:
        """The property that gives the topic an alias; None when it is not worth one yet. See :meth:`assign`."""
        if topic not in self._seen:
            if len(self._seen) >= self._maximum:
                del self._seen[next(iter(self._seen))]
            self._seen[topic] = None
            return None
        if len(self._topics) < self._maximum:
            return _property(len(self._topics) + 1)
        while self._used[self._hand]:
            self._used[self._hand] = False
            self._hand = (self._hand + 1) % self._maximum
        return self._codes[self._hand]

    def assign(self, topic: bytes) -> None:
        """The property that :meth:`wanted` made is being sent together with the topic."""
        self._seen.pop(topic, None)
        if len(self._topics) < self._maximum:
            number = len(self._topics)
            self._topics.append(topic)
            self._codes.append(_property(number + 1))
            self._used.append(False)
        else:
            number = self._hand
            del self._numbers[self._topics[number]]
            self._topics[number] = topic
            self._hand = (number + 1) % self._maximum
        self._numbers[topic] = number


def _property(alias: int) -> bytes:
    return b"\x23" + alias.to_bytes(2, "big")
