"""How old a message is, found out by offsets alone: no body is read, and no consumer's offset is touched.

(A pull of one message would tell as well, and would move the offset that brokers keep of what the group has pulled.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

OffsetAt = Callable[[int], Awaitable[int]]
"""The offset of the first message stored at this time (Unix time in milliseconds) or later."""

_FACTOR: Final = 4
_FIRST: Final = 1000
_LONGEST: Final = _FIRST * _FACTOR**11
"""48 days in milliseconds: longer than brokers keep messages (72 h by default)."""
_EXACT: Final = 1.1
_DAY: Final = 86_400_000
MOST_REQUESTS: Final = 17
"""Of one search: whether it is older than now (2), each power of 4 up to 48 days (11), and four halvings."""


async def stored_at(offset_at: OffsetAt, offset: int, now: int, not_before: int = 0) -> int | None:
    """When the message at ``offset`` was stored (Unix time in milliseconds), to a tenth of its age or half a second.

    ``not_before`` is a time before which it was not stored, where one is known. None: the broker does not say.
    """

    async def is_before(moment: int) -> bool:
        return await offset_at(moment) > offset

    if not await is_before(now):
        # The broker's clock is ahead of ours, or its store gives the last message where all are older.
        return now if await is_before(now + _DAY) else None
    younger, older = 0, _FIRST  # ages: it is older than the one, and not older than the other
    known = now - not_before
    while older < min(known, _LONGEST) and await is_before(now - older):
        younger, older = older, older * _FACTOR
    older = min(older, known, _LONGEST)
    while younger and older > younger * _EXACT:
        middle = round((younger * older) ** 0.5)
        if await is_before(now - middle):
            younger = middle
        else:
            older = middle
    return now - (younger + older) // 2
