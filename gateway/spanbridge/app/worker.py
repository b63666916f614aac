"""What one worker of several makes of the gateway's configuration: names, subscriptions and a spool of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spanbridge.config import Config, Mqtt
from spanbridge.config.split import share_group, split, worker_directory
from spanbridge.mqtt import MqttOptions, Subscription
from spanbridge.telemetry.env import resource_attributes

_INSTANCE = "service.instance.id"


@dataclass(frozen=True, slots=True)
class Worker:
    """The worker ``number`` of ``count``, from 1."""

    number: int
    count: int

    def config(self, config: Config, environ: Mapping[str, str]) -> Config:
        """The configuration as this worker's: nothing of it that only one process of the gateway can have.

        The spool has its share of the disk. What is there once for all (a will, the lag of consumer groups) is worker
        1's, and the admin server the supervisor's.

        :raises TelemetryConfigError: OTEL_RESOURCE_ATTRIBUTES cannot be read.
        """
        first = self.number == 1
        update: dict[str, Any] = {
            "mqtt": [self._broker(config, one) for one in config.mqtt],
            "admin": config.admin.model_copy(update={"enabled": False}),
            "telemetry": config.telemetry.model_copy(update={"resource": self._resource(config, environ)}),
            "lag": config.lag if first else None,
        }
        if config.spool is not None:
            path = worker_directory(config.spool.path, self.number)
            share = {
                "path": path,
                "max_bytes": config.spool.max_bytes // self.count,
                "rejected_max_bytes": config.spool.rejected_max_bytes // self.count,
            }
            update["spool"] = config.spool.model_copy(update=share)
        return config.model_copy(update=update)

    def _broker(self, config: Config, broker: Mqtt) -> Mqtt:
        update = {
            "client_id": f"{config.client_id(broker)}-{self.number}",
            "publisher_client_id": f"{config.publisher_client_id(broker)}-{self.number}",
            "will": broker.will if self.number == 1 else None,
        }
        return broker.model_copy(update=update)

    def _resource(self, config: Config, environ: Mapping[str, str]) -> dict[str, str]:
        given = config.telemetry.resource.get(_INSTANCE) or resource_attributes(environ).get(_INSTANCE) or config.name
        return {**config.telemetry.resource, _INSTANCE: f"{given}-{self.number}"}

    def portion(self, config: Config, broker: Mqtt, options: MqttOptions) -> MqttOptions:
        """A broker's connection with this worker's subscriptions; those of the others are foreign to it."""
        group = share_group(config, broker)
        takers = {text: one.worker for one in split(config) if one.broker == broker.name for text in one.filters}
        mine: list[Subscription] = []
        foreign: list[str] = []
        for plain in options.subscriptions:
            shared = replace(plain, share=group, no_local=False)
            alone = plain if broker.share is None else shared
            taker = takers[plain.filter]
            wanted = {None: shared, self.number: alone}.get(taker)
            mine += [] if wanted is None else [wanted]
            forms = {plain.filter: None, shared.wire_filter: None}
            foreign += [form for form in forms if wanted is None or form != wanted.wire_filter]
        return replace(options, subscriptions=tuple(mine), foreign=tuple(foreign))
