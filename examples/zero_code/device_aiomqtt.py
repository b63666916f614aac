"""A plain aiomqtt program; its loop says what it works on with one line, ``with process(message)``.

opentelemetry-instrument python device_aiomqtt.py localhost 1883
"""

import asyncio
import sys

import aiomqtt

from spanbridge_instrumentation import process

host, port = sys.argv[1:3]


async def main() -> None:
    async with aiomqtt.Client(host, int(port), protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("rooms/+/temperature", qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            with process(message):
                await client.publish("alarms/heat", message.payload, qos=1)
            return


asyncio.run(main())
