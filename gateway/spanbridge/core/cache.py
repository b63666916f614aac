"""A bounded cache that never empties all at once."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Generations(Generic[K, V]):
    """A cache of two generations that holds at most twice ``capacity`` entries.

    New entries go into the young generation. When it is full it becomes the old one, and the old one is dropped. An
    entry found in the old generation is put into the young one again, so what is in use stays. A look-up of an entry
    in use costs one dictionary access. Values are never None.

    ``young`` is for hot paths: ``cache.young.get(key) or cache.get(key)`` saves a call where the entry is in use.
    Do not keep it: it is another dictionary after each change of generation.
    """

    __slots__ = ("_capacity", "_old", "young")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("capacity is at least 1")
        self._capacity = capacity
        self.young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value of ``key``, or None."""
        value = self.young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep ``value`` under ``key``."""
        young = self.young
        if len(young) >= self._capacity and key not in young:
            self._old = young
            young = self.young = {}
        young[key] = value

    def clear(self) -> None:
        """Forget everything: what the values were made from has changed."""
        self.young = {}
        self._old = {}

    def __len__(self) -> int:
        """Entries held; one that is in both generations counts once."""
        return len(self.young.keys() | self._old.keys())
