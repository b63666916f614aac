"""The configuration's models. Their descriptions are the reference (docs/configuration.md is made from them)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from pydantic import Field

from spanbridge.config.models.base import Conflict, Section
from spanbridge.config.models.downlinks import DownlinkBounds, DownlinkSection
from spanbridge.config.models.gateway import GatewaySection
from spanbridge.config.models.lag import LagGroup, LagSection
from spanbridge.config.models.mqtt import Mqtt, Tls, Will
from spanbridge.config.models.profiling import Profiling
from spanbridge.config.models.rocketmq import Rocketmq
from spanbridge.config.models.routes import RouteSection
from spanbridge.config.models.runtime import Admin, Batch, TelemetrySection, UplinkSection
from spanbridge.config.models.spool import SpoolSection
from spanbridge.core import routes as core
from spanbridge.core.downlinks import Downlink

__all__ = [
    "Admin",
    "Batch",
    "Config",
    "DownlinkBounds",
    "DownlinkSection",
    "GatewaySection",
    "LagGroup",
    "LagSection",
    "Mqtt",
    "Profiling",
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
        default=[],
        description="Routes: MQTT to RocketMQ.",
        examples=[[{"filter": "devices/{device}/telemetry", "topic": "telemetry"}]],
    )
    downlinks: list[DownlinkSection] = Field(default=[], description="Downlinks: RocketMQ to MQTT.")
    gateway: GatewaySection = Field(default_factory=GatewaySection, description="Processes.")
    uplink: UplinkSection = Field(default_factory=UplinkSection, description="MQTT to RocketMQ.")
    downlink: DownlinkBounds = Field(default_factory=DownlinkBounds, description="RocketMQ to MQTT.")
    lag: LagSection | None = Field(default=None, description="Consumer lag. Without this table it is not watched.")
    spool: SpoolSection | None = Field(default=None, description="Messages on disk while RocketMQ is away.")
    admin: Admin = Field(default_factory=Admin, description="Admin server.")
    telemetry: TelemetrySection = Field(default_factory=TelemetrySection, description="Logs, metrics, traces.")
    profiling: Profiling = Field(default_factory=Profiling, description="Profiles of the gateway itself.")

    def conflicts(self) -> Iterator[Conflict]:
        """Something is to be forwarded, one way or the other."""
        if not self.routes and not self.downlinks:
            hint = '[[routes]] with `filter = "devices/{device}/telemetry"` and `topic = "telemetry"`'
            message = "is missing, and so are `[[downlinks]]`: nothing would be forwarded"
            yield Conflict(("routes",), message, f"for example: {hint}")
        if self.uplink.rejected is not None and self.spool is None:
            message = "is in the spool's directory, and there is no `[spool]`"
            yield Conflict(("uplink.rejected",), message, "add [spool] with a `path`, or name a `rejected_topic`")

    def client_id(self, broker: Mqtt) -> str:
        """The MQTT client identifier of the connection that subscribes."""
        return broker.client_id or self.name

    def publisher_client_id(self, broker: Mqtt) -> str:
        """The MQTT client identifier of the connection that publishes."""
        return broker.publisher_client_id or f"{self.client_id(broker)}-down"

    def routes_of(self, broker: Mqtt) -> list[RouteSection]:
        """The routes that apply to a connection, in the order of the file."""
        return [route for route in self.routes if route.source in (None, broker.name)]

    def downlinks_to(self, broker: Mqtt) -> list[DownlinkSection]:
        """The downlinks that publish to a broker, in the order of the file."""
        return [one for one in self.downlinks if self.broker_of(one) == broker.name]

    def broker_of(self, downlink: DownlinkSection) -> str:
        """The name of the broker that a downlink publishes to: the only one where it names none."""
        return downlink.broker or self.mqtt[0].name

    def subscribes(self, broker: Mqtt) -> bool:
        """Whether messages of a broker are wanted; one that is only published to takes no second connection."""
        return bool(self.routes_of(broker) or broker.subscribe or not self.downlinks_to(broker))

    def build_routes(self) -> list[core.Route]:
        """All routes as the core uses them."""
        return [route.build() for route in self.routes]

    def build_downlinks(self) -> list[Downlink]:
        """All downlinks as the core uses them."""
        return [one.build(self.broker_of(one)) for one in self.downlinks]
