"""How a route treats the trace context that a device sent."""

from __future__ import annotations

from enum import StrEnum


class ContextPolicy(StrEnum):
    """What the gateway does with an incoming context."""

    CONTINUE = "continue"
    """The gateway's spans are children of the device's; its send span's context travels on."""
    LINK = "link"
    """The gateway starts a new trace, linked to the device's."""
    PASSTHROUGH = "passthrough"
    """The device's context travels on unchanged; the gateway's spans are children of the device's all the same."""


class Carrier(StrEnum):
    """Where a MQTT v3.1.1 device puts its context, since that version has no user properties. Opt-in per route."""

    TOPIC_SUFFIX = "topic-suffix"
    JSON_PAYLOAD = "json-payload"
