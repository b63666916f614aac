"""Tables that both formats have: everything is written once and referred to by its number."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from spanbridge_profiling.profile import Sample

K = TypeVar("K", bound=Hashable)

Labels = Callable[[Sample], Mapping[str, str]]
"""What else a sample says of itself, such as the stage of a pipeline. Few different values."""


class Table(Generic[K]):
    """Numbers things in the order in which they are met. ``encode`` writes one; it may put things into other tables."""

    def __init__(self, encode: Callable[[K, int], bytes], *, first: int = 0) -> None:
        self._encode = encode
        self._first = first
        self._numbers: dict[K, int] = {}
        self.rows: list[bytes] = []

    def add(self, thing: K) -> int:
        """The number of a thing."""
        number = self._numbers.get(thing)
        if number is None:
            number = self._numbers[thing] = self._first + len(self.rows)
            self.rows.append(b"")  # its place, before those that it refers to
            self.rows[number - self._first] = self._encode(thing, number)
        return number


def no_labels(_sample: Sample) -> Mapping[str, str]:
    """Nothing else."""
    return {}
