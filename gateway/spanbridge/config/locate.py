"""Line numbers for TOML paths, without a second TOML parser.

tomllib keeps no positions. This scan understands headers, keys and multi-line strings, which is what configuration
files are made of; where it is unsure it says nothing, since a missing line number beats a wrong one.
"""

from __future__ import annotations

import re
from collections import Counter

from spanbridge.config.problems import Loc

_KEY = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE = re.compile(rf"^\s*\[\s*({_DOTTED})\s*\]\s*(?:#.*)?$")
_ARRAY = re.compile(rf"^\s*\[\[\s*({_DOTTED})\s*\]\]\s*(?:#.*)?$")
_PAIR = re.compile(rf"^\s*({_DOTTED})\s*=")
_QUOTES = re.compile(r"\"\"\"|'''")


def line_numbers(text: str) -> dict[Loc, int]:
    """Map the location of every table and key to its line, counted from 1."""
    lines: dict[Loc, int] = {}
    arrays: Counter[Loc] = Counter()
    table: Loc = ()
    inside_string = False
    for number, line in enumerate(text.splitlines(), start=1):
        opens_or_closes = len(_QUOTES.findall(line)) % 2 == 1
        if not inside_string:
            if match := _ARRAY.match(line):
                name = _resolve(_split(match[1]), arrays)
                table = (*name, arrays[name])
                lines.setdefault(name, number)
                arrays[name] += 1
                lines[table] = number
            elif match := _TABLE.match(line):
                table = _resolve(_split(match[1]), arrays)
                lines[table] = number
            elif match := _PAIR.match(line):
                lines.setdefault((*table, *_split(match[1])), number)
        inside_string ^= opens_or_closes
    return lines


def line_of(loc: Loc, lines: dict[Loc, int]) -> int | None:
    """The line of ``loc`` or of the nearest thing that holds it."""
    while loc:
        if loc in lines:
            return lines[loc]
        loc = loc[:-1]
    return None


def _split(dotted: str) -> Loc:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))


def _resolve(name: Loc, arrays: Counter[Loc]) -> Loc:
    """Add the index of the array item that a header such as ``[routes.x]`` continues."""
    resolved: Loc = ()
    for position, part in enumerate(name):
        resolved = (*resolved, part)
        if position < len(name) - 1 and arrays[resolved]:
            resolved = (*resolved, arrays[resolved] - 1)
    return resolved
