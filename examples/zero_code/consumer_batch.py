"""A plain RocketMQ consumer that handles messages by the batch: one span, with a link to each message's trace.

opentelemetry-instrument python consumer_batch.py localhost:8081 warehouse orders 3
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
    if messages:
        with process(messages):
            print(*(message.body.decode() for message in messages), sep="\n", flush=True)
            for message in messages:
                consumer.ack(message)
        left -= len(messages)
consumer.shutdown()
