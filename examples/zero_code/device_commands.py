"""A plain paho-mqtt device that answers commands: the answer is in the command's trace.

opentelemetry-instrument python device_commands.py localhost 1883
"""

import sys

import paho.mqtt.client as mqtt

host, port = sys.argv[1:3]

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)


@client.connect_callback()
def subscribe(client, userdata, flags, reason_code, properties):
    client.subscribe("devices/+/commands", qos=1)


@client.subscribe_callback()
def subscribed(client, userdata, mid, reason_codes, properties):
    print("ready", flush=True)


@client.topic_callback("devices/+/commands")
def command(client, userdata, message):
    if message.payload == b"stop":
        client.disconnect()
    else:
        client.publish(message.topic.replace("commands", "answers"), message.payload.upper(), qos=1)


client.connect(host, int(port))
client.loop_forever()
