"""The machine's time, as the ``Clock`` port."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """The machine's time."""

    def now_ns(self) -> int:
        """Unix time in nanoseconds."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds since some moment, never set."""
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        """Pause the calling task."""
        await asyncio.sleep(seconds)
