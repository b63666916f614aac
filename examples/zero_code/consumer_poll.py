"""A plain RocketMQ consumer that polls; its loop says what it works on with one line, ``with process(message)``.

opentelemetry-instrument python consumer_poll.py localhost:8081 stock orders 3
"""

import sys

from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer

from spanbridge_instrumentation import process

endpoints, group, topic, count = sys.argv[1:5]

configuration = ClientConfiguration(endpoints, Credentials())
consumer = SimpleConsumer(configuration, group, {topic: FilterExpression()}, await_duration=5)
consumer.startup()
print("ready", flush=True)
left = int(count)
while left > 0:
    for message in consumer.receive(32, 15):
        with process(message):
            print(message.body.decode(), flush=True)
            consumer.ack(message)
            left -= 1
consumer.shutdown()
