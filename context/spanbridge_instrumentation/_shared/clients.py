"""What is instrumented: every client of the process, single ones by themselves, or some of them not at all."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

I = TypeVar("I")  # noqa: E741 - an instrumentation


class State(Protocol[I]):
    """What is kept of one client: its own instrumentation, and whether it is to be left alone. Weakly referenced."""

    own: I | None
    disabled: bool


class Clients(Generic[I]):
    """The process-wide instrumentation, and those of single clients. ``state_of`` gives the state of a client."""

    def __init__(self, state_of: Callable[[Any], State[I]]) -> None:
        self.everywhere: I | None = None
        self._state_of = state_of
        self._singles: weakref.WeakSet[State[I]] = weakref.WeakSet()

    def any(self) -> I | None:
        """What instruments messages whose client is not known; None when nothing is instrumented."""
        if self.everywhere is not None:
            return self.everywhere
        return next((state.own for state in self._singles if state.own is not None), None)

    def set_everywhere(self, instrumentation: I) -> None:
        """Instrument every client of this process but those with an instrumentation of their own."""
        self.everywhere = instrumentation

    def clear(self) -> None:
        """Instrument nothing any more."""
        self.everywhere = None
        for state in list(self._singles):
            state.own = None

    def set_single(self, client: Any, instrumentation: I | None) -> None:
        """Instrument this client by itself; None: not at all, whatever is instrumented elsewhere."""
        state = self._state_of(client)
        state.own = instrumentation
        state.disabled = instrumentation is None
        self._singles.add(state)

    def forget_single(self, client: Any) -> None:
        """Let the client be treated as all others are."""
        state = self._state_of(client)
        state.own = None
        state.disabled = False
