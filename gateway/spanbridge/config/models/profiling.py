"""``[profiling]``: which of the gateway's own work takes CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from spanbridge.config.models.base import Conflict, Duration, Secret, Section


class Profiling(Section):
    """CPU profiles of the gateway itself. Off unless asked for; without samples to take it costs nothing."""

    enabled: bool = Field(
        default=False,
        description="Serve `/debug/pprof/profile` on the admin server. Samples are taken only while a profile is made.",
    )
    token: Secret | None = Field(
        default=None,
        description=(
            "What a request has to bring (`Authorization: Bearer ...`). Needed where other machines reach the admin "
            "server; without it the page is refused there."
        ),
    )
    push: Literal["none", "otlp"] = Field(
        default="none",
        description=(
            "`otlp` samples all the time, and sends profiles to the receiver that the OTEL_EXPORTER_OTLP_PROFILES_* "
            "(or common) variables name. OTLP profiles are in development: a receiver for opentelemetry-proto 1.10 or "
            "later is needed."
        ),
    )
    rate: int = Field(
        default=25, ge=1, le=1000, description="Samples per second of CPU time. More for a closer look, at its cost."
    )
    interval: Duration = Field(default=15.0, ge=1, le=3600, description="Pause between two profiles that are pushed.")

    def conflicts(self) -> Iterator[Conflict]:
        """A token protects a page that is there."""
        if self.token is not None and not self.enabled:
            yield Conflict(("token", "enabled"), "protects nothing", "set `enabled = true`, or leave the token out")
