"""Real brokers for the demo and the tests, without docker, root or a Java of your own.

::

    with Devstack.up() as stack:
        topic = stack.rocketmq.create_topic("telemetry")
        connect(stack.mqtt_v5.host, stack.mqtt_v5.port)
"""

from spanbridge.devstack.errors import DevstackError, DownloadError, ServiceError
from spanbridge.devstack.faults import FaultProxy
from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.mqtt_setup import MqttSetup
from spanbridge.devstack.rocketmq import RocketmqBroker
from spanbridge.devstack.stack import Devstack

__all__ = [
    "Devstack",
    "DevstackError",
    "DownloadError",
    "FaultProxy",
    "MqttBroker",
    "MqttSetup",
    "RocketmqBroker",
    "ServiceError",
]
