"""RocketMQ to MQTT: mapping down, order in message groups, parking, flow control, orderly stop."""

from spanbridge.downlink.calls import ConsumerCalls
from spanbridge.downlink.outbound import Outbound
from spanbridge.downlink.parking import DownlinkSettings
from spanbridge.downlink.pipeline import Downlinks
from spanbridge.downlink.recipe import DownlinkEnds

__all__ = ["ConsumerCalls", "DownlinkEnds", "DownlinkSettings", "Downlinks", "Outbound"]
