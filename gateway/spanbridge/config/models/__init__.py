"""The configuration's models. Their descriptions are the reference (docs/configuration.md is made from them)."""

from __future__ import annotations

import re
import socket

from pydantic import Field

from spanbridge.config.models.base import Section
from spanbridge.config.models.mqtt import Mqtt, Tls, Will
from spanbridge.config.models.rocketmq import Rocketmq
from spanbridge.config.models.routes import RouteSection
from spanbridge.config.models.runtime import Admin, Batch, TelemetrySection, UplinkSection
from spanbridge.config.models.spool import SpoolSection
from spanbridge.core import routes as core

__all__ = [
    "Admin",
    "Batch",
    "Config",
    "Mqtt",
    "Rocketmq",
    "RouteSection",
    "Section",
    "SpoolSection",
    "TelemetrySection",
    "Tls",
    "UplinkSection",
    "Will",
    "default_name",
]


def default_name() -> str:
    """``spanbridge-`` and this host's name: the same after a restart, so that the MQTT session is found again."""
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().partition(".")[0])[:48]
    return f"spanbridge-{host or 'gateway'}"


class Config(Section):
    """The whole file."""

    name: str = Field(
        default_factory=default_name,
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Name of this gateway, unique among gateways that feed each other (loop prevention), and the "
        "default `client_id`. Defaults to `spanbridge-` and the host's name.",
    )
    mqtt: list[Mqtt] = Field(min_length=1, description="MQTT brokers.", examples=[[{"url": "mqtt://127.0.0.1:1883"}]])
    rocketmq: Rocketmq = Field(description="RocketMQ cluster.", examples=[{"endpoints": "127.0.0.1:8081"}])
    routes: list[RouteSection] = Field(
        min_length=1,
        description="Routes.",
        examples=[[{"filter": "devices/{device}/telemetry", "topic": "telemetry"}]],
    )
    uplink: UplinkSection = Field(default_factory=UplinkSection, description="MQTT to RocketMQ.")
    spool: SpoolSection | None = Field(default=None, description="Messages on disk while RocketMQ is away.")
    admin: Admin = Field(default_factory=Admin, description="Admin server.")
    telemetry: TelemetrySection = Field(default_factory=TelemetrySection, description="Logs, metrics, traces.")

    def client_id(self, broker: Mqtt) -> str:
        """The MQTT client identifier of a connection."""
        return broker.client_id or self.name

    def routes_of(self, broker: Mqtt) -> list[RouteSection]:
        """The routes that apply to a connection, in the order of the file."""
        return [route for route in self.routes if route.source in (None, broker.name)]

    def build_routes(self) -> list[core.Route]:
        """All routes as the core uses them."""
        return [route.build() for route in self.routes]
