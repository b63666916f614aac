"""Stacks: walked in a microsecond or a few while sampling, made readable later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType

DEEPEST = 128
"""Frames kept of a stack; those nearest to the root are left out."""

Stack = tuple[int, ...]
"""The identities of the code objects, innermost frame first, then the instruction in each."""

Peek = Callable[[FrameType], str]
"""Reads what a frame works on: a short text of few different values. "" for nothing. It runs while sampling."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack. ``first_line`` is where the function begins; 0 is an unknown line."""

    function: str
    file: str
    line: int
    first_line: int


class Codes:
    """The code objects that stacks refer to. Comparing code objects is dear, comparing their identities is not."""

    def __init__(self, peeks: Mapping[CodeType, Peek] | None = None) -> None:
        """Also read what the frames of some functions work on."""
        self._codes: dict[int, CodeType] = {}
        self._peeks = {id(code): peek for code, peek in (peeks or {}).items()}
        self._kept = tuple(peeks or ())  # an identity means nothing once its object is gone
        self._lines: dict[tuple[int, int], Frame] = {}

    def walk(self, frame: FrameType | None) -> tuple[Stack, str]:
        """A frame and its callers, and what the innermost frame with a peek works on."""
        codes: list[CodeType] = []
        places: list[int] = []
        innermost, left = frame, DEEPEST
        while frame is not None and left:
            codes.append(frame.f_code)
            places.append(frame.f_lasti)
            frame = frame.f_back
            left -= 1
        keys = tuple(map(id, codes))
        self._codes.update(zip(keys, codes, strict=True))
        note = "" if self._peeks.keys().isdisjoint(keys) else self._peek(innermost)
        return keys + tuple(places), note

    def _peek(self, frame: FrameType | None) -> str:
        """What the innermost frame that can tell works on."""
        while frame is not None:
            peek = self._peeks.get(id(frame.f_code))
            if peek is not None and (note := peek(frame)):
                return note
            frame = frame.f_back
        return ""

    def read(self, stack: Stack) -> tuple[Frame, ...]:
        """The frames of a stack, innermost first."""
        middle = len(stack) // 2
        return tuple(map(self._frame, stack[:middle], stack[middle:]))

    def _frame(self, key: int, instruction: int) -> Frame:
        found = self._lines.get((key, instruction))
        if found is None:
            code = self._codes[key]
            line = _line(code, instruction)
            found = Frame(code.co_qualname, code.co_filename, line, code.co_firstlineno)
            self._lines[key, instruction] = found
        return found


def _line(code: CodeType, instruction: int) -> int:
    """The source line of an instruction (PEP 626)."""
    for start, end, line in code.co_lines():
        if start <= instruction < end:
            return line or code.co_firstlineno
    return code.co_firstlineno
