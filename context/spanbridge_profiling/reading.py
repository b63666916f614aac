"""Reads pprof's format back: what a gateway serves, what `SPANBRIDGE_PROFILING=file` wrote, and what others wrote."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from spanbridge_profiling.profile import Counts, Profile, Sample
from spanbridge_profiling.stacks import Frame
from spanbridge_profiling.wire import fields, read_varint

_LARGEST = 256 << 20
"""Bytes of a profile at most, decompressed."""
_COMMENTS = {
    "samples with a span": "linked",
    "samples without a span": "without_span",
    "samples whose span could not be told": "unknown",
    "samples not kept": "lost",
}
_HEX = {"trace_id": re.compile(r"[0-9a-f]{32}"), "span_id": re.compile(r"[0-9a-f]{16}")}


class UnreadableProfile(ValueError):  # noqa: N818 - a state of what was given
    """This is no pprof profile of CPU time. The message says why."""


@dataclass(slots=True)
class _Top:
    """The profile's own fields, before its tables are put together."""

    types: list[bytes] = field(default_factory=list)
    samples: list[bytes] = field(default_factory=list)
    locations: list[bytes] = field(default_factory=list)
    functions: list[bytes] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)
    comments: list[int] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)


def read_pprof(content: bytes) -> Profile:
    """A CPU profile, compressed or not.

    :raises UnreadableProfile: it is none.
    """
    try:
        return _Reader(_top(_plain(content))).profile()
    except (ValueError, KeyError, IndexError, zlib.error) as error:
        raise UnreadableProfile(f"no pprof profile: {error}") from error


def _plain(content: bytes) -> bytes:
    """Without the compression, which the format leaves to the writer."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    plain = unpacker.decompress(content, _LARGEST)
    if unpacker.unconsumed_tail:
        raise ValueError(f"larger than {_LARGEST >> 20} MiB")
    if not unpacker.eof:
        raise ValueError("the file is cut short")
    return plain


def _top(data: bytes) -> _Top:
    top = _Top()
    tables = {1: top.types, 2: top.samples, 4: top.locations, 5: top.functions}
    for number, value in fields(data):
        if number == 13:
            top.comments += _numbers(value)
        elif isinstance(value, int):
            top.numbers[number] = value
        elif number == 6:
            top.strings.append(value.decode("utf-8", "replace"))
        elif number in tables:
            tables[number].append(value)
    return top


class _Reader:
    def __init__(self, top: _Top) -> None:
        self._top = top
        self._functions = dict(map(self._function, top.functions))
        self._locations = dict(map(self._location, top.locations))
        names = [self._kind(one) for one in top.types]
        if "cpu" not in names:
            raise ValueError("it has no CPU time")
        self._cpu = names.index("cpu")
        self._count = names.index("samples") if "samples" in names else None

    def profile(self) -> Profile:
        top = self._top
        counts = Counts()
        for comment in top.comments:
            name, _, number = top.strings[comment].partition(": ")
            if name in _COMMENTS and number.isdecimal():
                setattr(counts, _COMMENTS[name], int(number))
        samples = tuple(map(self._sample, top.samples))
        numbers = top.numbers
        return Profile(numbers.get(9, 0), numbers.get(10, 0), numbers.get(12, 0), samples, counts)

    def _kind(self, data: bytes) -> str:
        found = dict(fields(data))
        return self._text(found.get(1, 0))

    def _function(self, data: bytes) -> tuple[int, tuple[str, str, int]]:
        found = _integers(data)
        name, file = self._text(found.get(2, 0)), self._text(found.get(4, 0))
        return found.get(1, 0), (name or "?", file, found.get(5, 0))

    def _location(self, data: bytes) -> tuple[int, tuple[Frame, ...]]:
        """The frames of a location: several where the compiler inlined, the innermost first."""
        frames = []
        for number, value in fields(data):
            if number == 4 and isinstance(value, bytes):
                line = _integers(value)
                name, file, first = self._functions[line.get(1, 0)]
                frames.append(Frame(name, file, line.get(2, 0), first))
        return _integers(data).get(1, 0), tuple(frames) or (Frame("?", "", 0, 0),)

    def _sample(self, data: bytes) -> Sample:
        places: list[int] = []
        values: list[int] = []
        labels: dict[str, str] = {}
        for number, value in fields(data):
            if number == 1:
                places += _numbers(value)
            elif number == 2:
                values += _numbers(value)
            elif number == 3 and isinstance(value, bytes):
                labels.update(self._label(value))
        frames = tuple(frame for place in places for frame in self._locations[place])
        trace_id, span_id = (_identity(labels, name) for name in _HEX)
        count = values[self._count] if self._count is not None else 1
        thread = labels.pop("thread", "")
        return Sample(frames, trace_id, span_id, thread, "", count, values[self._cpu], tuple(sorted(labels.items())))

    def _label(self, data: bytes) -> Iterator[tuple[str, str]]:
        found = _integers(data)
        if found.get(2):
            yield self._text(found.get(1, 0)), self._text(found[2])

    def _text(self, number: int | bytes) -> str:
        if not isinstance(number, int):
            raise ValueError("a string has no number")  # noqa: TRY004 - the file is wrong, not the code
        return self._top.strings[number]


def _identity(labels: dict[str, str], name: str) -> int:
    """A trace or span identifier, which is then no longer a label; 0 where there is none."""
    if not _HEX[name].fullmatch(labels.get(name, "")):
        return 0
    return int(labels.pop(name), 16)


def _integers(data: bytes) -> dict[int, int]:
    return {number: value for number, value in fields(data) if isinstance(value, int)}


def _numbers(value: int | bytes) -> Iterator[int]:
    """A repeated varint field, packed or not."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = read_varint(value, at)
        yield number
