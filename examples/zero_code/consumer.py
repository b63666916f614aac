"""A plain RocketMQ push consumer: no word of tracing in it. It prints what it gets, until it is told to end.

opentelemetry-instrument python consumer.py localhost:8081 billing orders
"""

import signal
import sys
import threading

from rocketmq import ClientConfiguration, ConsumeResult, Credentials, FilterExpression, MessageListener, PushConsumer

endpoints, group, *topics = sys.argv[1:]


class Listener(MessageListener):
    def consume(self, message):
        print(message.body.decode() + "\n", end="", flush=True)
        return ConsumeResult.SUCCESS


ended = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: ended.set())

subscription = {topic: FilterExpression() for topic in topics}
consumer = PushConsumer(ClientConfiguration(endpoints, Credentials()), group, Listener(), subscription)
consumer.startup()
print("ready", flush=True)
ended.wait()
consumer.shutdown()
