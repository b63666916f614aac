"""A plain sensor: single readings, a burst of them, then answers to commands. No word of tracing in it.

opentelemetry-instrument python sensor.py localhost 1883 5 devices/d1 telemetry d1 10 20 3
"""

import json
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

host, port, version, place, reading, name = sys.argv[1:7]
single, burst, commands = map(int, sys.argv[7:10])

protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
sent = []
answered = threading.Semaphore(0)


@client.connect_callback()
def subscribe(client, userdata, flags, reason_code, properties):
    client.subscribe(f"{place}/commands/#", qos=1)  # "#": with MQTT 3.1.1 the context is two more levels


@client.subscribe_callback()
def subscribed(client, userdata, mid, reason_codes, properties):
    print("ready", flush=True)


@client.topic_callback(f"{place}/commands")
def command(client, userdata, message):
    answer = {"device": name, "id": json.loads(message.payload)["id"], "readings": len(sent)}
    topic, properties = f"{place}/answers", None
    if version == "5":
        topic, properties = message.properties.ResponseTopic, Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = message.properties.CorrelationData
    sent.append(client.publish(topic, json.dumps(answer), qos=1, properties=properties))
    answered.release()


client.connect(host, int(port))
client.loop_start()
for seq in range(1, single + burst + 1):
    sent.append(client.publish(f"{place}/{reading}", json.dumps({"device": name, "seq": seq}), qos=1))
    if seq <= single:
        time.sleep(0.1)
for _ in range(commands):
    answered.acquire()
for message in sent:
    message.wait_for_publish(10)
client.disconnect()
client.loop_stop()
