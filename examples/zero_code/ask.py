"""A plain RocketMQ program that asks devices for their state and prints the answers: no word of tracing in it.

opentelemetry-instrument python ask.py localhost:8081 sensor-1 meter-1 5
"""

import base64
import json
import sys
import threading
import time
import uuid

from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
)

endpoints, device, meter, count = sys.argv[1:5]
asked = {}
answered = threading.Condition()


class Answers(MessageListener):
    def consume(self, message):
        answer = json.loads(message.body)
        given = message.properties.get("mqtt.correlation-data")
        correlation = answer.pop("id", "") if given is None else base64.b64decode(given).decode()
        with answered:
            number = asked.pop(correlation, None)
            if number is not None:
                print(json.dumps({"question": number, **answer}) + "\n", end="", flush=True)
            answered.notify_all()
        return ConsumeResult.SUCCESS


def ask(topic, name, number, properties):
    correlation = uuid.uuid4().hex
    asked[correlation] = number
    message = Message()
    message.topic = topic
    message.keys = name
    message.body = json.dumps({"ask": "state", "id": correlation}).encode()
    for key, value in properties.items():
        message.add_property(key, value)
    if properties:  # MQTT 5 has a field for it
        message.add_property("mqtt.correlation-data", base64.b64encode(correlation.encode()).decode())
    producer.send(message)


configuration = ClientConfiguration(endpoints, Credentials())
consumer = PushConsumer(configuration, "demo-answers", Answers(), {"answers": FilterExpression()})
consumer.startup()
producer = Producer(configuration, ("commands", "meter-commands"))
producer.startup()
for number in range(1, int(count) + 1):
    ask("commands", device, number, {"mqtt.response-topic": f"devices/{device}/answers"})
    ask("meter-commands", meter, number, {})
    time.sleep(0.1)
with answered:
    complete = answered.wait_for(lambda: not asked, 60)
producer.shutdown()
consumer.shutdown()
sys.exit(not complete)
