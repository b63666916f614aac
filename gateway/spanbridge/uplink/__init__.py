"""MQTT to RocketMQ: intake, batching sender, flow control, orderly stop."""

from spanbridge.uplink.pipeline import Uplink
from spanbridge.uplink.settings import UplinkSettings
from spanbridge.uplink.spill import SpillSettings

__all__ = ["SpillSettings", "Uplink", "UplinkSettings"]
