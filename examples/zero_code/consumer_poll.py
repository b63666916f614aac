"""A plain RocketMQ consumer that polls; its loop says what it works on with one line, ``with process(message)``.

opentelemetry-instrument python consumer_poll.py localhost:8081 stock orders 3
"""

import sys
import time

from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer
from rocketmq.v5.exception import ClientException

from spanbridge_instrumentation import process

endpoints, group, topic, count = sys.argv[1:5]

configuration = ClientConfiguration(endpoints, Credentials())
consumer = SimpleConsumer(configuration, group, {topic: FilterExpression()}, await_duration=5)
consumer.startup()
print("ready", flush=True)
left = int(count)
while left > 0:
    try:
        messages = consumer.receive(32, 15)
    except ClientException:  # the broker may not know this consumer yet
        time.sleep(0.1)
        continue
    for message in messages:
        with process(message):
            print(message.body.decode(), flush=True)
            consumer.ack(message)
            left -= 1
consumer.shutdown()
