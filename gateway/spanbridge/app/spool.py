"""What is shown of the spool: how much it holds, how fast it grows, and how long that can go on."""

from __future__ import annotations

from collections import deque
from typing import Any

from spanbridge.app.services import RATE_PERIOD, Periodic
from spanbridge.ports import Clock
from spanbridge.spool.segments import SegmentSpool
from spanbridge.telemetry import Telemetry
from spanbridge.uplink.dead_letters import DeadLetters
from spanbridge.uplink.spill import Spill

_WINDOW = 12
"""Readings that growth is worked out from: a minute."""


class SpoolView(Periodic):
    """Reads the spool's size now and then. A service of the gateway."""

    name = "spool.view"

    def __init__(
        self, spool: SegmentSpool, spill: Spill, rejected: SegmentSpool, letters: DeadLetters, clock: Clock
    ) -> None:
        super().__init__()
        self._spool = spool
        self._spill = spill
        self._rejected = rejected
        self._letters = letters
        self._clock = clock
        self.readings: deque[tuple[int, int]] = deque(maxlen=_WINDOW)
        """Moments (monotonic, ns) and sizes in bytes."""

    async def run(self) -> None:
        """Read for ever."""
        while True:
            self.readings.append((self._clock.monotonic_ns(), self._spool.size))
            await self._clock.sleep(RATE_PERIOD)

    def status(self) -> dict[str, Any]:
        """How often it reads."""
        return {"interval_s": RATE_PERIOD}

    @property
    def growth(self) -> float:
        """Bytes a second over the last minute; negative while it empties."""
        if not self.readings:
            return 0.0
        then, before = self.readings[0]
        seconds = (self._clock.monotonic_ns() - then) / 1e9
        return (self._spool.size - before) / seconds if seconds >= 1 else 0.0

    @property
    def lasts(self) -> float | None:
        """Seconds until it is full at this rate; None while it does not grow."""
        return self._spool.room / self.growth if self.growth > 0 else None

    def oldest_age(self) -> float:
        """Seconds since the oldest message in it was received, as far as it was read; 0 when it is empty."""
        received = self._spill.oldest_ns
        return 0.0 if received is None else max(0.0, (self._clock.now_ns() - received) / 1e9)

    def show(self) -> dict[str, Any]:
        """For /status."""
        lasts = self.lasts
        return {
            **self._spool.status(),
            "spooled": self._spill.spooled,
            "sent": self._spill.sent,
            "straight": self._spill.idle,
            "oldest_s": round(self.oldest_age(), 1),
            "growth_bytes_per_s": round(self.growth),
            "hours_left": None if lasts is None else round(lasts / 3600, 2),
            "rejected": self._show_rejected(),
        }

    def _show_rejected(self) -> dict[str, Any]:
        """Dead letters on the disk."""
        spool, oldest = self._rejected, self._letters.oldest_ns
        return {
            "messages": spool.end - spool.first,
            "bytes": spool.size,
            "max_bytes": spool.limit,
            "oldest_s": None if oldest is None else round(max(0.0, (self._clock.now_ns() - oldest) / 1e9), 1),
            "failing": spool.status()["failing"],
        }

    def register(self, telemetry: Telemetry) -> None:
        """Export it as gauges."""
        spool = self._spool
        text = "Messages in the spool."
        telemetry.gauge(
            "spanbridge.spool.messages", lambda: spool.end - spool.first, unit="{message}", description=text
        )
        text = "Bytes that the spool takes on the disk."
        telemetry.gauge("spanbridge.spool.size", lambda: spool.size, unit="By", description=text)
        text = "Bytes that the spool may take."
        telemetry.gauge("spanbridge.spool.limit", lambda: spool.limit, unit="By", description=text)
        text = "Time since the oldest message in the spool was received; 0 when it is empty."
        telemetry.gauge("spanbridge.spool.oldest.age", self.oldest_age, unit="s", description=text)
        text = "Time until the spool is full at the present rate; absent while it does not grow."
        telemetry.gauge("spanbridge.spool.time_left", self._left, unit="s", description=text)
        self._register_rejected(telemetry)

    def _register_rejected(self, telemetry: Telemetry) -> None:
        spool = self._rejected
        text = "Dead letters in the spool."
        telemetry.gauge(
            "spanbridge.spool.rejected.messages", lambda: spool.end - spool.first, unit="{message}", description=text
        )
        text = "Bytes that dead letters take on the disk."
        telemetry.gauge("spanbridge.spool.rejected.size", lambda: spool.size, unit="By", description=text)
        text = "Bytes that dead letters may take."
        telemetry.gauge("spanbridge.spool.rejected.limit", lambda: spool.limit, unit="By", description=text)

    def _left(self) -> list[tuple[float, dict[str, str]]]:
        lasts = self.lasts
        return [] if lasts is None else [(lasts, {})]
