"""Parking: messages of message groups that cannot go now, held here for a few more attempts.

While such a message is nacked, RocketMQ gives out nothing of its whole queue to anybody (its lock is per queue, not
per message group). So it is tried again here, while its receipt handle is renewed and other groups go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from spanbridge.core.errors import NoSubscribers, SinkError, SinkMisconfigured
from spanbridge.core.retry import Backoff
from spanbridge.downlink.outbound import Outbound
from spanbridge.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class DownlinkSettings:
    """Bounds of each downlink: what was received and is not answered, in messages and in bytes.

    ``attempts`` is how often a message of a message group is published again before it is given up, with pauses that
    grow from ``backoff_initial`` to ``backoff_maximum`` seconds.
    """

    max_in_flight: int = 1024
    max_in_flight_bytes: int = 16 << 20
    attempts: int = 3
    backoff_initial: float = 0.2
    backoff_maximum: float = 2.0


class Parking:
    """Holds messages until their next attempt. ``retry`` gets each when its pause is over."""

    def __init__(
        self,
        settings: DownlinkSettings,
        clock: Clock,
        retry: Callable[[Outbound], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._retry = retry
        self._draw = draw
        self._held: dict[Outbound, asyncio.Task[None]] = {}

    def use(self, settings: DownlinkSettings) -> None:
        """Park by these from now on."""
        self._settings = settings

    def park(self, outbound: Outbound) -> bool:
        """Hold a message until its next attempt; False when it has had all of them."""
        settings = self._settings
        backoff = outbound.backoff
        if backoff is None:
            backoff = outbound.backoff = Backoff(settings.backoff_initial, settings.backoff_maximum, factor=3.0)
            outbound.parked_ns = self._clock.monotonic_ns()
        if backoff.failures >= settings.attempts:
            return False
        pause = max(settings.backoff_initial, backoff.next_delay(self._draw()))
        self._held[outbound] = asyncio.get_running_loop().create_task(self._hold(outbound, pause))
        return True

    async def stop(self) -> None:
        """Hold nothing any longer, and retry nothing. Idempotent."""
        held, self._held = self._held, {}
        for task in held.values():
            task.cancel()
        await asyncio.gather(*held.values(), return_exceptions=True)

    def __len__(self) -> int:
        """Messages that are held."""
        return len(self._held)

    async def _hold(self, outbound: Outbound, pause: float) -> None:
        await self._clock.sleep(pause)
        del self._held[outbound]
        self._retry(outbound)


def is_the_devices(error: SinkError, outbound: Outbound, worked_ns: int) -> bool:
    """Whether a message failed for a reason of its own device, so that those behind it may go on without it.

    Nobody subscribes to its topic; or the broker does not let it through while it does let others through. What holds
    for every message (credentials that somebody has to mend) must not send a whole queue to the dead letters.
    ``worked_ns`` is when the broker last took a message (monotonic).
    """
    if isinstance(error, NoSubscribers):
        return True
    return isinstance(error, SinkMisconfigured) and worked_ns > outbound.parked_ns
