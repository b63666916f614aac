"""What devices and peers wrote, made fit for a log line."""

from __future__ import annotations

_LONGEST = 160
"""Characters of a topic that help to recognise it."""


def quoted(text: str, longest: int = _LONGEST) -> str:
    """``text`` in quotes, with control characters (line breaks, terminal escapes) escaped, and cut when it is long."""
    if len(text) <= longest:
        return repr(text)
    return f"{text[:longest]!r}... ({len(text)} characters)"
