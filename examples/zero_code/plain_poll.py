"""The smallest RocketMQ consumer that polls, with nothing of spanbridge in it: each message has its `process` span.

opentelemetry-instrument python plain_poll.py localhost:8081 stock orders answers 3
"""

import sys
import time

from rocketmq import ClientConfiguration, Credentials, FilterExpression, Message, Producer, SimpleConsumer
from rocketmq.v5.exception import ClientException

endpoints, group, topic, answers, count = sys.argv[1:6]

configuration = ClientConfiguration(endpoints, Credentials())
consumer = SimpleConsumer(configuration, group, {topic: FilterExpression()})
consumer.startup()
producer = Producer(configuration, (answers,))
producer.startup()
print("ready", flush=True)
left = int(count)
while left > 0:
    try:
        messages = consumer.receive(32, 15)
    except ClientException:  # the broker may not know this consumer yet
        time.sleep(0.1)
        continue
    for message in messages:
        answer = Message()
        answer.topic, answer.body = answers, message.body
        producer.send(answer)
        consumer.ack(message)
        left -= 1
for client in (producer, consumer):
    client.shutdown()
