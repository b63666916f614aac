"""A MicroPython device on ``mqtt_as`` (MQTT 5) that starts a trace with every message it publishes.

docs/micropython.md says how the codec gets onto a board; copy this file there as well, and install the client:
``mip.install("github:peterhinch/micropython-mqtt")``. It sends one user property a message, and a new context is one:
``tp``.
"""

import asyncio
import json

from mqtt_as import MQTTClient, config

from spanbridge_context import TraceContext, inject_user_properties

TOPIC = "site/a12/dev/7/temperature"
USER_PROPERTY = 0x26  # MQTT 5.0 section 2.2.2.2


async def publish(client, topic, payload):
    """Publish with a new context."""
    properties = dict(inject_user_properties([], TraceContext.new()))
    await client.publish(topic, payload, qos=1, properties={USER_PROPERTY: properties})


async def main(server="127.0.0.1", count=10, pause=1):
    """Publish ``count`` readings, ``pause`` seconds apart. The board's own ``config`` has the name of its network."""
    config["server"] = server
    config["mqttv5"] = True
    client = MQTTClient(config)
    await client.connect()
    for number in range(count):
        await publish(client, TOPIC, json.dumps({"value": 20 + number / 10, "unit": "C"}))
        await asyncio.sleep(pause)
    await client.disconnect()


def run(task):
    """Run a coroutine to its end, also on a build whose ``asyncio`` has no ``run``."""
    if hasattr(asyncio, "run"):
        return asyncio.run(task)
    loop = asyncio.get_event_loop()
    if hasattr(loop, "run_until_complete"):
        return loop.run_until_complete(task)
    return asyncio.create_task(task)  # in a browser or in Node: their loop runs it once the program has ended


if __name__ == "__main__":
    run(main())
