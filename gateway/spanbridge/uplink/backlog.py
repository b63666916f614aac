"""Which of the spool's records are on their way, and which are done: a byte to each, from the first undone one on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

_WAITS, _GIVEN, _DONE = 0, 1, 2
_TRIM = 65_536


class Numbered(Protocol):
    """What stands for a record: anything with its number."""

    number: int


D = TypeVar("D", bound=Numbered)


class Backlog:
    """``first`` is the number of the first record that is not done."""

    __slots__ = ("_base", "_state", "first", "given")

    def __init__(self, first: int) -> None:
        self.first = first
        self.given = 0
        """How many are on their way."""
        self._base = first
        self._state = bytearray()

    @property
    def end(self) -> int:
        """Records from this number on wait."""
        return self._base + len(self._state)

    def waits(self, number: int) -> bool:
        """Whether a record is neither on its way nor done."""
        at = number - self._base
        return at >= len(self._state) or (at >= 0 and self._state[at] == _WAITS)

    def give(self, number: int) -> None:
        """A record is on its way."""
        if number == self._base + len(self._state):  # most come one after the other
            self._state.append(_GIVEN)
        else:
            self._set(number, _GIVEN)
        self.given += 1

    def take_back(self, number: int) -> None:
        """A record is to be given again."""
        self._set(number, _WAITS)
        self.given -= 1

    def finish(self, deliveries: Sequence[D]) -> list[D]:
        """Those of them whose records were on their way: these are done, once :meth:`advance` is called."""
        state, base, size = self._state, self._base, len(self._state)
        found: list[D] = []
        for delivery in deliveries:
            at = delivery.number - base
            if 0 <= at < size and state[at] == _GIVEN:
                state[at] = _DONE
                found.append(delivery)
        self.given -= len(found)
        return found

    def skip(self, numbers: Iterable[int]) -> None:
        """Records that need not go anywhere are done."""
        for number in numbers:
            if self.waits(number):
                self._set(number, _DONE)
        self.advance()

    def _set(self, number: int, state: int) -> None:
        at = number - self._base
        if at < 0:
            return
        if at >= len(self._state):
            self._state.extend(bytes(at + 1 - len(self._state)))
        self._state[at] = state

    def advance(self) -> None:
        """Move :attr:`first` past what is done."""
        state, at = self._state, self.first - self._base
        while at < len(state) and state[at] == _DONE:
            at += 1
        self.first = self._base + at
        if at >= _TRIM:
            del state[:at]
            self._base = self.first
