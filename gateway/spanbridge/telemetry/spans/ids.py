"""Random trace and span ids: from the system's generator, drawn in bulk, fresh in every forked child."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, repeat
from struct import Struct

_BULK = 4096
_ZERO = bytes(8)  # invalid as a span id (Trace Context Level 2, section 3.2.2.4)
_in_pairs = Struct("8s8s").iter_unpack


def _draw(_: None) -> Iterator[tuple[bytes, bytes]]:
    drawn = os.urandom(_BULK)
    while _ZERO in drawn:
        drawn = os.urandom(_BULK)
    return _in_pairs(drawn)


def _begin() -> None:
    """Draw anew: what was drawn before may be another process's as well."""
    global pair  # noqa: PLW0603 - a look-up of the module's is what the hot path can afford
    pair = chain.from_iterable(map(_draw, repeat(None))).__next__


pair = chain.from_iterable(map(_draw, repeat(None))).__next__
"""The next two span ids. Iterators in C: a call of a Python function would take as long again for each id.

Look it up in the module each time: a forked child has another one.
"""


def span_id() -> bytes:
    """Eight random bytes, not all zero."""
    return pair()[0]


def trace_id() -> bytes:
    """Sixteen bytes, all random: the random-trace-id flag may be set (Trace Context Level 2, section 3.2.2.5)."""
    return b"".join(pair())


os.register_at_fork(after_in_child=_begin)
