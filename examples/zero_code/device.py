"""A plain paho-mqtt device: no word of tracing in it.

opentelemetry-instrument python device.py localhost 1883 devices/d1/state
"""

import sys

import paho.mqtt.client as mqtt

host, port, topic = sys.argv[1:4]

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.connect(host, int(port))
client.loop_start()
for reading in range(3):
    client.publish(topic, f'{{"reading": {reading}}}', qos=1).wait_for_publish(10)
client.disconnect()
client.loop_stop()
