"""Requests of one batch, side by side where order allows, each chain in order. Both protocols send by this."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

from spanbridge.core.errors import SinkError, SinkMisconfigured, SinkRejected, SinkThrottled, SinkUnavailable, bare

# The error that decides what happens to a batch, when several requests of it failed: what an operator must mend comes
# first, and content is blamed last, since blame makes the caller take the batch apart.
_GRAVITY: tuple[type[SinkError], ...] = (SinkMisconfigured, SinkUnavailable, SinkThrottled, SinkRejected)


class RequestPart(NamedTuple):
    """What one request holds of a batch: the messages, and their indexes in the batch."""

    indexes: Sequence[int]
    messages: Sequence[bytes]


class Chain(NamedTuple):
    """Requests that are sent one after the other, and what sends one. It raises ``SinkError``."""

    parts: Sequence[RequestPart]
    deliver: Callable[[RequestPart], Awaitable[None]]


def cut(part: RequestPart, limit: int, overhead: int) -> list[RequestPart]:
    """The part, cut where the broker would find a request too large. ``overhead`` is added to each message's size."""
    indexes, messages = part
    if sum(map(len, messages)) + overhead * len(messages) <= limit:
        return [part] if messages else []
    parts: list[RequestPart] = []
    start = size = 0
    for index, message in enumerate(messages):
        size += len(message) + overhead
        if size > limit and index > start:
            parts.append(RequestPart(indexes[start:index], messages[start:index]))
            start, size = index, len(message) + overhead
    parts.append(RequestPart(indexes[start:], messages[start:]))
    return parts


def singly(batch: Sequence[bytes]) -> list[RequestPart]:
    """One part for each message."""
    return [RequestPart((index,), (message,)) for index, message in enumerate(batch)]


async def deliver_chains(chains: Sequence[Chain], gate: asyncio.Semaphore) -> None:
    """Chains side by side, each in order and ended by its first failure. ``gate`` bounds the requests under way.

    Once nobody answers or RocketMQ asks for less, requests that have not begun are left for the next time.

    :raises SinkError: one of those, when there are any; its ``stored`` holds what is stored by then.
    """
    stored: set[int] = set()
    errors: list[SinkError] = []

    async def run(chain: Chain) -> None:
        for part in chain.parts:
            async with gate:
                if any(map(_for_all, errors)):
                    return
                try:
                    await chain.deliver(part)
                except SinkError as error:
                    stored.update(part.indexes[index] for index in error.stored)
                    errors.append(bare(error))
                    return
            stored.update(part.indexes)

    await side_by_side([run(chain) for chain in chains])
    if errors:
        raise _gravest(errors, stored)


async def side_by_side(chains: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end. When one of them raises, the others are cancelled and waited for before it is raised."""
    tasks = [asyncio.get_running_loop().create_task(chain) for chain in chains]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks  # they hold what they raised, and that holds this frame


def _for_all(error: SinkError) -> bool:
    """Whether other requests to the same servers would fare no better now."""
    return isinstance(error, SinkThrottled) or error.reason in {"deadline_exceeded", "unavailable"}


def _gravity(error: SinkError) -> int:
    return next((rank for rank, kind in enumerate(_GRAVITY) if isinstance(error, kind)), len(_GRAVITY))


def _gravest(errors: list[SinkError], stored: Iterable[int]) -> SinkError:
    """The error that decides. ``errors`` is emptied: the frame that raises one must not hold it."""
    gravest = min(errors, key=_gravity)
    errors.clear()
    gravest.stored = frozenset(stored)
    return gravest
