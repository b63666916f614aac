"""``[profiling]``: which of the gateway's own work takes CPU time."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spanbridge.config.models.base import Duration, Section


class Profiling(Section):
    """CPU profiles of the gateway itself. Off unless asked for; without samples to take it costs nothing."""

    enabled: bool = Field(
        default=False,
        description=(
            "Serve `/debug/pprof/profile` on the admin server, to those who may see `/status` there. Samples are taken "
            "only while a profile is made."
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
