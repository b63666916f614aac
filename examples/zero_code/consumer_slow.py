"""A plain RocketMQ push consumer that is too slow, and no word in it says why. It runs until it is told to end.

SPANBRIDGE_PROFILING=file opentelemetry-instrument python consumer_slow.py localhost:8081 billing readings
"""

import json
import signal
import sys
import threading

from rocketmq import ClientConfiguration, ConsumeResult, Credentials, FilterExpression, MessageListener, PushConsumer

endpoints, group, topic = sys.argv[1:4]
positions = int(sys.argv[4]) if len(sys.argv) > 4 else 20
tariffs = [{"until": number, "price": number % 7} for number in range(60_000)]


def find_tariff(reading):
    found = None
    for tariff in tariffs:  # to the end, for every reading
        if tariff["until"] >= reading["seq"] and found is None:
            found = tariff
    return found


def bill(reading):
    return [find_tariff(reading)["price"] for _ in range(positions)]


class Listener(MessageListener):
    def consume(self, message):
        reading = json.loads(message.body)
        print(json.dumps({**reading, "prices": sum(bill(reading))}) + "\n", end="", flush=True)
        return ConsumeResult.SUCCESS


ended = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: ended.set())

configuration = ClientConfiguration(endpoints, Credentials())
consumer = PushConsumer(
    configuration, group, Listener(), {topic: FilterExpression()}, max_cache_message_count=8, consumption_thread_count=1
)
consumer.startup()
print("ready", flush=True)
ended.wait()
consumer.shutdown()
