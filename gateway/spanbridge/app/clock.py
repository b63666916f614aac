"""The machine's time, as the ``Clock`` port."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """The machine's time."""

    # The functions themselves: the hot path asks for the time several times a batch.
    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    @staticmethod
    def boot_ns() -> int:
        """Nanoseconds since the machine started, its sleep included where the system counts that. Never set."""
        return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    async def sleep(self, seconds: float) -> None:
        """Pause the calling task."""
        await asyncio.sleep(seconds)
