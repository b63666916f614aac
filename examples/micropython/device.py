"""A MicroPython device that starts a trace with every message it publishes.

Copy the folder ``spanbridge_context`` (without ``otel.py``) and an MQTT client beside this file. ``client.py`` is a
stand-in name for the MQTT client of your board; the two ways to carry the context are in ``publish_v5`` and
``publish_v311``.
"""

import json
import time

from client import MQTTClient

from spanbridge_context import TraceContext, inject_topic, inject_user_properties

TOPIC = "site/a12/dev/7/temperature"


def publish_v5(client, topic, payload):
    """MQTT v5: the context is one user property, ``tp``."""
    context = TraceContext.new()
    client.publish(topic, payload, qos=1, properties=inject_user_properties([("model", "t1")], context))


def publish_v311(client, topic, payload):
    """MQTT 3.1.1: the context is the topic's last level (``carrier = "topic"`` in the gateway's route)."""
    context = TraceContext.new()
    client.publish(inject_topic(topic, context), payload, qos=1)


def main(count=10, pause=1):
    """Publish ``count`` readings both ways, ``pause`` seconds apart."""
    client = MQTTClient("dev-7", "127.0.0.1")
    client.connect()
    for number in range(count):
        payload = json.dumps({"value": 20 + number / 10, "unit": "C"}).encode()
        publish_v5(client, TOPIC, payload)
        publish_v311(client, TOPIC, payload)
        time.sleep(pause)
    client.disconnect()


if __name__ == "__main__":
    main()
