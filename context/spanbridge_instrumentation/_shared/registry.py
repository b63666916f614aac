"""What we know of message objects that are not ours, for as long as they live."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_V = TypeVar("_V")


class MessageRegistry(Generic[_V]):
    """Maps message objects to values by identity, weakly: an entry goes when its message does.

    Messages of client libraries are seldom hashable by identity and may define ``__eq__``, so the key is ``id()``,
    guarded by a weak reference. Objects that cannot be weakly referenced are not taken (:meth:`put` says so).
    Safe to use from several threads: every step is one dictionary operation. ``gone`` is called with the value of a
    message that is no more, or got another one; perhaps in the middle of a garbage collection.
    """

    def __init__(self, gone: Callable[[_V], None] | None = None) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], _V]] = {}
        self._gone = gone

    def put(self, message: object, value: _V) -> bool:
        """Remember ``value`` for ``message``; false when the object has no weak references."""
        key = id(message)
        entries, gone = self._entries, self._gone

        def forget(reference: weakref.ref[Any]) -> None:
            # The id may belong to a new object by now: only our own entry goes.
            entry = entries.get(key)
            if entry is not None and entry[0] is reference:
                entries.pop(key, None)
            if gone is not None:
                gone(value)

        try:
            reference = weakref.ref(message, forget)
        except TypeError:
            return False
        former = entries.get(key)
        entries[key] = (reference, value)
        if gone is not None and former is not None:
            gone(former[1])
        return True

    def get(self, message: object) -> _V | None:
        """The value remembered for exactly this object, or None."""
        entry = self._entries.get(id(message))
        return entry[1] if entry is not None and entry[0]() is message else None

    def __len__(self) -> int:
        return len(self._entries)
