"""The smallest aiomqtt consumer, with nothing of spanbridge in it: the loop's body is in each message's trace.

opentelemetry-instrument python plain_loop.py localhost 1883 2
"""

import asyncio
import sys

import aiomqtt

host, port, count = sys.argv[1:4]


async def main() -> None:
    left = int(count)
    async with aiomqtt.Client(host, int(port), protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("devices/+/state", qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            await client.publish("alarms/heat", message.payload, qos=1)
            left -= 1
            if not left:
                return


asyncio.run(main())
