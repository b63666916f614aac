"""The context (PEP 567) that is current in another thread.

Python has no call for it: ``contextvars`` shows the calling thread's only. CPython keeps it in
``PyThreadState.context``, at a place that differs between versions. That place is found at run time: in a context known
to us, exactly one word of our own thread state points to it. The finding is tested on another thread before it is used,
and without it nothing is said of other threads: no span is better than a wrong one (docs/adr/0141).
"""

from __future__ import annotations

import contextvars
import ctypes
import sys
import threading
from collections.abc import Callable

_WORD = ctypes.sizeof(ctypes.c_void_p)
_WORDS = 40
"""How much of a thread state is searched. It is longer, and both members are in its first 29 words (3.11 to 3.13)."""


class ContextsUnavailable(Exception):  # noqa: N818 - a state of the interpreter rather than a fault
    """The contexts of other threads cannot be read here. The message says why."""


class ThreadContexts:
    """Reads contexts of other threads. To be made, and used, with the GIL held, as all Python code does."""

    def __init__(self) -> None:
        """Find the members and test them.

        :raises ContextsUnavailable: another interpreter, no GIL, or members that cannot be told apart.
        """
        if sys.implementation.name != "cpython":
            raise ContextsUnavailable("the interpreter is not CPython")
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            raise ContextsUnavailable("this CPython runs without the GIL")
        api = ctypes.pythonapi  # its calls keep the GIL
        self._own = _function(api, "PyThreadState_Get")
        self._interpreter = _function(api, "PyThreadState_GetInterpreter", ctypes.c_void_p)(self._own())
        self._first = _function(api, "PyInterpreterState_ThreadHead", ctypes.c_void_p)
        self._next = _function(api, "PyThreadState_Next", ctypes.c_void_p)
        self._ident_at = self._find(threading.get_ident())
        self._context_at = self._find_context()
        self._test()

    def of(self, thread: int) -> contextvars.Context | None:
        """The current context of a thread (``threading.get_ident()``); None while it has none, or has ended."""
        state = self._first(self._interpreter)
        while state:
            if _word(state + self._ident_at) == thread:
                found = _word(state + self._context_at)
                return ctypes.cast(found, ctypes.py_object).value if found else None
            state = self._next(state)
        return None

    def _find_context(self) -> int:
        """Where the pointer to the context is: the same place in three contexts."""
        places = set()
        for context in [contextvars.Context() for _ in range(3)]:
            places.add(context.run(self._find, id(context)))
        if len(places) != 1:
            raise ContextsUnavailable("the thread's context has no fixed place in this CPython")
        return places.pop()

    def _find(self, value: int) -> int:
        state = self._own()
        places = [at for at in range(0, _WORDS * _WORD, _WORD) if _word(state + at) == value]
        if len(places) != 1:
            raise ContextsUnavailable("this CPython's thread state looks unlike those known")
        return places[0]

    def _test(self) -> None:
        """Have a thread enter a context, and look at it from here."""
        entered, seen = threading.Event(), threading.Event()
        context = contextvars.Context()

        def wait() -> None:
            entered.set()
            seen.wait()

        thread = threading.Thread(target=context.run, args=(wait,), name="spanbridge-profiling-test", daemon=True)
        thread.start()
        entered.wait()
        ident = thread.ident or 0
        good = self._is(ident, context)
        seen.set()
        thread.join()
        if not good:
            raise ContextsUnavailable("a thread's context is not where it was found")

    def _is(self, thread: int, context: contextvars.Context) -> bool:
        """Whether that is the thread's context, without taking what was found for an object."""
        state = self._first(self._interpreter)
        while state:
            if _word(state + self._ident_at) == thread:
                return _word(state + self._context_at) == id(context)
            state = self._next(state)
        return False


def _function(api: ctypes.PyDLL, name: str, *takes: type[ctypes.c_void_p]) -> Callable[..., int]:
    """A function of CPython's that returns an address.

    :raises ContextsUnavailable: there is none of that name.
    """
    try:
        found = api[name]  # an object of our own: attributes of `api` are shared by the whole process
    except AttributeError:
        raise ContextsUnavailable(f"this CPython has no {name}") from None
    found.restype, found.argtypes = ctypes.c_void_p, takes
    return found


def _word(address: int) -> int:
    return int(ctypes.c_size_t.from_address(address).value)
