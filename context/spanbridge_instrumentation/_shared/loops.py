"""``process`` spans of plain loops over messages: each lasts from its message to the next request for one.

A loop is left in ways that nobody tells of (``break``, ``return``, an exception, a cancelled task, a closed generator).
Each of them lets go of the loop's iterator, which CPython then deletes at once. So an iterator belongs to one loop, and
its end is the loop's. Whether the loop was left by an error cannot be seen from there: ``with process`` sees it.
docs/adr/0164 has the reasons.
"""

from __future__ import annotations

import dis
import sys
from collections import deque
from types import FrameType
from typing import Final

from opentelemetry.context import Context, attach, get_current

from .delivery import Delivery
from .processing import Joined, Processing, current
from .safety import choice, internal_error

ENV_LOOPS: Final = "SPANBRIDGE_LOOP_SPANS"

_ITERATES: Final = dis.opmap.get("GET_ITER")
_STEPS: Final = dis.opmap.get("FOR_ITER")
_BETWEEN: Final = frozenset({dis.opmap.get("CACHE", -1), dis.opmap.get("EXTENDED_ARG", -1)})
_COMPREHENSIONS: Final = frozenset({"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"})
_SDK: Final = "opentelemetry.sdk"


class LoopSpans:
    """Whether plain loops make spans: the keyword, else the variable (``auto``, ``on``, ``off``).

    ``auto``: as long as the program has not imported ``process``. Who has says what it works on, perhaps elsewhere than
    in the loop that hands the messages out, and a second span would be wrong.
    """

    __slots__ = ("_mode",)

    def __init__(self, given: bool | None = None) -> None:
        default = "auto" if given is None else ("off", "on")[given]
        self._mode = choice(ENV_LOOPS, ("auto", "on", "off"), default) if given is None else default

    def __bool__(self) -> bool:
        return self._mode == "on" or (self._mode == "auto" and not _by_hand)


_by_hand: Final[list[bool]] = []


def say_by_hand() -> None:
    """The program has imported ``process``."""
    if not _by_hand:
        _by_hand.append(True)


class Step(Processing):
    """One message of a loop. Its context is current until something else is, in the loop's own task or thread.

    A ``with process(message)`` in the loop's body takes it over: it then ends with that block, and has its error.
    """

    __slots__ = ("_before", "_taken")

    def __init__(self, message: object, delivery: Delivery) -> None:
        super().__init__((message,), (delivery,))
        self._before: Context | None = None
        self._taken = False

    def join(self) -> Processing:
        if self._taken:
            return Joined(self)
        self._taken = True
        return _Taken(self)

    def over(self) -> None:
        """The loop asks for its next message, or is left."""
        if self._taken:
            self._leave()
        else:
            self.end()

    def _enter(self, context: Context) -> None:
        self._before = get_current()
        attach(context)

    def _leave(self) -> None:
        # No token: the end may come in another context than the start (a generator that asyncio closes), and the body
        # may have attached something of its own.
        before = self._before
        if before is not None and get_current() is self._context:
            attach(before)


class _Taken(Joined):
    """The block that took a step over."""

    __slots__ = ("_step",)

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self._step = step

    def fail(self, error: BaseException) -> None:
        self._step.fail(error)

    def end(self) -> None:
        self._step.end()


class Loop:
    """The steps of one loop; to be held by its iterator alone."""

    __slots__ = ("_step",)

    def __init__(self) -> None:
        self._step: Step | None = None

    def over(self) -> None:
        """The last message's step is over."""
        step, self._step = self._step, None
        if step is not None:
            step.over()
        if _left:
            end_left()

    def begin(self, message: object, delivery: Delivery | None) -> None:
        """Hand out a message, whose step begins; with no delivery there is none."""
        if delivery is not None:
            self._step = step = Step(message, delivery)
            step.start()

    def left(self) -> None:
        """The iterator is deleted: the loop was left, or garbage was collected.

        A collection may run in the middle of one of the SDK's locks, and ending a span asks for these: then the next
        loop ends it.
        """
        step, self._step = self._step, None
        if step is None:
            return
        try:
            if _runs_sdk():
                _left.append(step)
            else:
                step.over()
        except Exception:  # noqa: BLE001
            internal_error("the end of a loop")


_left: Final[deque[Step]] = deque()


def end_left() -> None:
    """End what loops left behind."""
    while _left:
        try:
            _left.popleft().over()
        except IndexError:  # another thread was faster
            return


def inside(message: object) -> bool:
    """Whether the code runs in a ``with process`` of a batch with the message, which says what is worked on."""
    running = current()
    return running is not None and running.holds(message)


def is_for_statement(frame: FrameType) -> bool:
    """Whether the frame is about to run the body of a ``for`` statement over what it asks an iterator of.

    What else asks for one (``list(messages)``, ``sorted``, a comprehension) only looks at the messages. False where
    the interpreter does not say.
    """
    code, position = frame.f_code.co_code, frame.f_lasti
    if position < 0 or code[position] != _ITERATES or frame.f_code.co_name in _COMPREHENSIONS:
        return False
    position += 2
    while position < len(code) and code[position] in _BETWEEN:
        position += 2
    return position < len(code) and code[position] == _STEPS


def _runs_sdk() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith(_SDK):
            return True
        frame = frame.f_back
    return False
