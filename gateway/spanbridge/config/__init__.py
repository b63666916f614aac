"""The configuration file: models, loading, checking."""

from spanbridge.config.load import Report, examine, examine_text, load
from spanbridge.config.models import Admin, Batch, Config, Mqtt, Rocketmq, Route, Telemetry, Tls, Uplink, Will
from spanbridge.config.problems import ConfigError, Problem

__all__ = [
    "Admin",
    "Batch",
    "Config",
    "ConfigError",
    "Mqtt",
    "Problem",
    "Report",
    "Rocketmq",
    "Route",
    "Telemetry",
    "Tls",
    "Uplink",
    "Will",
    "examine",
    "examine_text",
    "load",
]
