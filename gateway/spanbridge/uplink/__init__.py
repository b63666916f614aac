"""MQTT to RocketMQ: intake, batching sender, flow control, orderly stop."""

from spanbridge.uplink.pipeline import Uplink, UplinkSettings

__all__ = ["Uplink", "UplinkSettings"]
