"""A MicroPython device on ``umqtt.simple`` (MQTT 3.1.1) that starts a trace with every message it publishes.

docs/micropython.md says how the codec gets onto a board; copy this file there as well, and install the client:
``mip.install("umqtt.simple")``. The context is the topic's last level; the gateway's route needs
``carriers = ["topic-suffix"]`` to take it off.
"""

import json
import time

from umqtt.simple import MQTTClient

from spanbridge_context import TraceContext, inject_topic

TOPIC = "site/a12/dev/7/temperature"


def publish(client, topic, payload):
    """Publish with a new context. Not with ``retain``: a broker would keep one message for every trace."""
    client.publish(inject_topic(topic, TraceContext.new()), payload, qos=1)


def main(server="127.0.0.1", count=10, pause=1):
    """Publish ``count`` readings, ``pause`` seconds apart."""
    client = MQTTClient("dev-7", server)
    client.connect()
    for number in range(count):
        publish(client, TOPIC, json.dumps({"value": 20 + number / 10, "unit": "C"}))
        time.sleep(pause)
    client.disconnect()


if __name__ == "__main__":
    main()
