"""Bounds and extra destinations of the uplink."""

from __future__ import annotations

from dataclasses import dataclass, field

from spanbridge.core.partition import BatchLimits
from spanbridge.uplink.passes import ReplayBounds
from spanbridge.uplink.spill import SpillSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkSettings:
    """Bounds and extra destinations.

    ``gateway`` names this one in ``spanbridge.path``. ``max_in_flight`` (messages) and ``max_in_flight_bytes`` bound
    what was received and is not acknowledged: above, the sockets of sources that hold their share are not read.
    ``unroutable_topic`` takes what no route takes, ``rejected_topic`` whatever else can never be forwarded as it is.
    With ``rejected_here`` the spool keeps those instead. ``reject_after`` (seconds) is how long messages wait for a
    topic that a device named and that cannot be used.
    """

    gateway: str
    max_in_flight: int = 4096
    max_in_flight_bytes: int = 32 << 20
    limits: BatchLimits = field(default_factory=BatchLimits)
    unroutable_topic: str | None = None
    rejected_topic: str | None = None
    rejected_here: bool = False
    reject_after: float = 30.0
    spill: SpillSettings = field(default_factory=SpillSettings)

    def replay_bounds(self) -> ReplayBounds:
        """How much may be out of the spool at a time."""
        window = self.spill.window
        messages, size = int(self.max_in_flight * window), int(self.max_in_flight_bytes * window)
        return ReplayBounds(max(1, messages), max(1, size), self.spill.max_age)
