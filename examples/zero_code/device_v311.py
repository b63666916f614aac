"""A plain MQTT 3.1.1 device. Its trace travels in the topic, since 3.1.1 has no properties, and only when asked for:

SPANBRIDGE_MQTT_V311_CARRIER=topic opentelemetry-instrument python device_v311.py localhost 1883 devices/d2/state
"""

import sys

import paho.mqtt.client as mqtt

host, port, topic = sys.argv[1:4]

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.connect(host, int(port))
client.loop_start()
client.publish(topic, '{"reading": 1}', qos=1).wait_for_publish(10)
client.disconnect()
client.loop_stop()
