"""Replacing methods of a library's classes, and giving them back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_ORIGINAL = "_spanbridge_original"


class Patches:
    """Method replacements that are undone together, safe while calls are under way and under other people's patches.

    A replacement asks by itself whether it is active, since somebody may hold on to it (a bound method, another
    instrumentation's wrapper): :meth:`undo` restores only what is still on top, the rest must pass calls through.
    """

    def __init__(self) -> None:
        self._done: list[tuple[type, str, Callable[..., Any]]] = []

    def replace(self, owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
        """Put ``make(original)`` in place of ``owner.name``; false when the class has no such method.

        Does nothing when our replacement is there already, however deep below others'.
        """
        original = owner.__dict__.get(name)
        function = original.__func__ if isinstance(original, staticmethod | classmethod) else original
        if function is None or not callable(function):
            return False
        for done in self._done:
            if done[:2] == (owner, name):
                if _holds(function, done[2]):
                    return True
                self._done.remove(done)  # somebody restored the method over our heads
                break
        replacement = functools.wraps(function)(make(function))
        setattr(replacement, _ORIGINAL, original)
        wrapped = type(original)(replacement) if isinstance(original, staticmethod | classmethod) else replacement
        setattr(owner, name, wrapped)
        self._done.append((owner, name, replacement))
        return True

    def undo(self) -> None:
        """Restore every method on which nobody has put a wrapper of their own since."""
        kept = []
        for owner, name, replacement in reversed(self._done):
            current = owner.__dict__.get(name)
            if getattr(current, "__func__", current) is replacement:
                setattr(owner, name, getattr(replacement, _ORIGINAL))
            else:
                kept.append((owner, name, replacement))
        self._done = kept[::-1]


def _holds(function: object, replacement: object) -> bool:
    """Whether ``replacement`` is in the chain of wrappers, as ``functools.wraps`` and wrapt leave it."""
    for _ in range(100):
        if function is None or function is replacement:
            break
        function = getattr(function, "__wrapped__", None)
    return function is replacement
