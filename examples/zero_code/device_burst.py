"""A plain device that sends all its readings at once: no word of tracing in it.

opentelemetry-instrument python device_burst.py localhost 1883 meters/meter-1/reading meter-1 100
"""

import json
import sys

import paho.mqtt.client as mqtt

host, port, topic, name, count = sys.argv[1:6]

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.connect(host, int(port))
client.loop_start()
sent = [client.publish(topic, json.dumps({"device": name, "seq": seq}), qos=1) for seq in range(1, int(count) + 1)]
for message in sent:
    message.wait_for_publish(30)
client.disconnect()
client.loop_stop()
