"""A plain RocketMQ producer: no word of tracing in it.

opentelemetry-instrument python producer.py localhost:8081 orders
"""

import sys

from rocketmq import ClientConfiguration, Credentials, Message, Producer

endpoints, topic = sys.argv[1:3]

producer = Producer(ClientConfiguration(endpoints, Credentials()), (topic,))
producer.startup()
for number in range(3):
    message = Message()
    message.topic = topic
    message.body = f'{{"order": {number}}}'.encode()
    producer.send(message)
producer.shutdown()
