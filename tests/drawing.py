"""How many examples hypothesis draws for a property."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("FUZZ", "1"))
"""``make fuzz`` draws this many times as many, other ones each time."""


def examples(count: int) -> int:
    """The ``max_examples`` of a property that takes ``count`` of them in ``make test``."""
    return count * TIMES
