"""The configuration file: models, loading, checking."""

from spanbridge.config.load import Report, examine, examine_text, load
from spanbridge.config.models import (
    Admin,
    Batch,
    Config,
    DownlinkSection,
    LagGroup,
    LagSection,
    Mqtt,
    Rocketmq,
    RouteSection,
    TelemetrySection,
    Tls,
    UplinkSection,
    Will,
)
from spanbridge.config.problems import InvalidConfigError, Problem

__all__ = [
    "Admin",
    "Batch",
    "Config",
    "DownlinkSection",
    "InvalidConfigError",
    "LagGroup",
    "LagSection",
    "Mqtt",
    "Problem",
    "Report",
    "Rocketmq",
    "RouteSection",
    "TelemetrySection",
    "Tls",
    "UplinkSection",
    "Will",
    "examine",
    "examine_text",
    "load",
]
