"""How much may be in our hands: sockets are not read while it is more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from spanbridge.ports import Clock
from spanbridge.uplink.intake import Intake
from spanbridge.uplink.settings import UplinkSettings


class Backpressure:
    """Watches what sources hold; ``intakes`` is a live view. ``pressed`` is told when a bound is reached."""

    def __init__(self, intakes: Sequence[Intake], settings: UplinkSettings, clock: Clock) -> None:
        self.settings = settings
        self.pressed: Callable[[], None] | None = None
        self.empty = asyncio.Event()
        """Set while nothing is in flight."""
        self.empty.set()
        self.leaving: dict[Intake, asyncio.Event] = {}
        """Sources that bring nothing more, each with what is set once all of theirs is acknowledged."""
        self._intakes = intakes
        self._clock = clock

    @property
    def in_flight(self) -> int:
        """Messages received and neither acked nor nacked."""
        return sum(intake.source.unacked for intake in self._intakes)

    @property
    def held(self) -> int:
        """Messages in our hands: those in flight, and those whose acknowledgement waits for an earlier message."""
        return sum(intake.source.held for intake in self._intakes)

    @property
    def held_bytes(self) -> int:
        """Bytes that the messages in our hands take, as they came and in RocketMQ's form."""
        return sum(intake.source.held_bytes + intake.encoded_bytes for intake in self._intakes)

    @property
    def paused(self) -> bool:
        """Whether a socket is not read because as much is held as may be."""
        return any(intake.paused for intake in self._intakes)

    def oldest_age(self) -> float:
        """Seconds that the oldest message in flight has waited; 0 when none does."""
        oldest = [age for intake in self._intakes if (age := intake.source.oldest_ns()) is not None]
        return max(0.0, (self._clock.monotonic_ns() - min(oldest)) / 1e9) if oldest else 0.0

    def hold(self, intake: Intake) -> None:
        """Stop reading when enough is in flight: brokers overrun Receive Maximum, so the socket is the bound."""
        if intake.source.unacked:
            self.empty.clear()
        settings = self.settings
        if not intake.paused and self._over(intake, settings.max_in_flight, settings.max_in_flight_bytes):
            intake.paused = True
            intake.source.pause()
            if self.pressed is not None:
                self.pressed()

    def relieve(self) -> None:
        """Read again when a quarter is free: not at every message, or pausing would be all we do."""
        if not self.in_flight:
            self.empty.set()
        for intake, sent in self.leaving.items():
            if not intake.source.unacked:
                sent.set()
        settings = self.settings
        messages, size = settings.max_in_flight * 3 // 4 + 1, settings.max_in_flight_bytes * 3 // 4 + 1
        for intake in self._intakes:
            if intake.paused and not self._over(intake, messages, size):
                intake.paused = False
                intake.source.resume()

    def _over(self, intake: Intake, messages: int, size: int) -> bool:
        """Whether all sources together hold so much, and this one its share: one that is stuck must not stop others."""
        source, shares = intake.source, len(self._intakes)
        if source.held * shares >= messages and self.held >= messages:
            return True
        return (source.held_bytes + intake.encoded_bytes) * shares >= size and self.held_bytes >= size
