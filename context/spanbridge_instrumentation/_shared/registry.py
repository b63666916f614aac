"""What we know of message objects that are not ours, for as long as they live."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

_V = TypeVar("_V")


class MessageRegistry(Generic[_V]):
    """Maps message objects to values by identity, weakly: an entry goes when its message does.

    Messages of client libraries are seldom hashable by identity and may define ``__eq__``, so the key is ``id()``,
    guarded by a weak reference. Objects that cannot be weakly referenced are not taken (:meth:`put` says so).
    Safe to use from several threads: every step is one dictionary operation.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], _V]] = {}

    def put(self, message: object, value: _V) -> bool:
        """Remember ``value`` for ``message``; false when the object has no weak references."""
        key = id(message)
        entries = self._entries

        def forget(reference: weakref.ref[Any]) -> None:
            # The id may belong to a new object by now: only our own entry goes.
            entry = entries.get(key)
            if entry is not None and entry[0] is reference:
                entries.pop(key, None)

        try:
            entries[key] = (weakref.ref(message, forget), value)
        except TypeError:
            return False
        return True

    def get(self, message: object) -> _V | None:
        """The value remembered for exactly this object, or None."""
        entry = self._entries.get(id(message))
        return entry[1] if entry is not None and entry[0]() is message else None

    def __len__(self) -> int:
        return len(self._entries)
