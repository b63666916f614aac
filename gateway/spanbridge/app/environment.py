"""What the process's environment adds to a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from spanbridge.config import Config
from spanbridge.core.errors import ConfigError
from spanbridge.telemetry import Telemetry


def telemetry_problem(config: Config, environ: Mapping[str, str]) -> str | None:
    """Why telemetry cannot start (an OTEL_* variable, a certificate that it names), or None. Connects to nothing."""
    try:
        Telemetry(config.telemetry, environ=environ)
    except ConfigError as error:
        return str(error)
    return None
