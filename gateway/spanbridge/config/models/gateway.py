"""``[gateway]``: how many processes do the work, and how they divide it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spanbridge.config.models.base import Section


class GatewaySection(Section):
    """The processes of one gateway. With one worker, the gateway is one process."""

    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that forward messages. With more than one, another process watches over them: it takes "
        "the signals, starts a worker again that died, and serves the admin server's pages for all.",
    )
    split: Literal["auto", "share", "filters"] = Field(
        default="auto",
        description="How workers divide what the MQTT brokers send. `share`: each message goes to any worker "
        "(`$share`), and the order within an MQTT topic is given up. `filters`: each subscription is one worker's, and "
        "the order is kept. `auto`: `filters` where a route has a `message_group`, where filters overlap and with MQTT "
        "3.1.1, else `share`.",
    )
