"""A plain sensor with a burst of readings at the end: no word of tracing in it.

opentelemetry-instrument python sensor.py localhost 1883 5 devices/d1/telemetry d1 10 20
"""

import json
import sys
import time

import paho.mqtt.client as mqtt

host, port, version, topic, name = sys.argv[1:6]
single, burst = map(int, sys.argv[6:8])

protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
client.connect(host, int(port))
client.loop_start()
sent = []
for seq in range(1, single + burst + 1):
    sent.append(client.publish(topic, json.dumps({"device": name, "seq": seq}), qos=1))
    if seq <= single:
        time.sleep(0.1)
for message in sent:
    message.wait_for_publish(10)
client.disconnect()
client.loop_stop()
