"""A RocketMQ program that goes through cases; started under ``opentelemetry-instrument``, told by its exports.

A message's tag names its case. A push consumer gets them all; another group polls for what came before ``after``.
"""

import sys
import threading
import time

from opentelemetry.instrumentation.utils import suppress_instrumentation
from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
    SimpleConsumer,
)
from rocketmq.v5.exception import ClientException

from spanbridge_instrumentation import process
from spanbridge_instrumentation.rocketmq import RocketMQInstrumentor

endpoints, topic, push_group, poll_group = sys.argv[1:5]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BAD = {
    "malformed": {"traceparent": "00-nonsense"},
    "zero_id": {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"},
    # More than the 8192 bytes and 180 members that are kept, more than W3C Trace Context's 32 members.
    "baggage": {"traceparent": PARENT, "baggage": f"big={'v' * 8190}"},
    "baggage-members": {"traceparent": PARENT, "baggage": ",".join(f"k{n}=v" for n in range(190))},
    "tracestate": {"traceparent": PARENT, "tracestate": ",".join(f"k{n}=v" for n in range(40))},
    # Longer than the 512 characters that W3C asks everybody to carry, and well-formed.
    "long": {"traceparent": PARENT, "tracestate": ",".join(f"k{n}={'v' * 100}" for n in range(8))},
}
arrived = threading.Semaphore(0)


def await_arrivals(count: int) -> None:
    for _ in range(count):
        assert arrived.acquire(timeout=60)


class Listener(MessageListener):
    def consume(self, message: Message) -> ConsumeResult:
        arrived.release()
        return ConsumeResult.SUCCESS


def made(case: str, **properties: str) -> Message:
    message = Message()
    message.topic, message.tag, message.body = topic, case, b"x"
    for name, value in properties.items():
        message.add_property(name, value)
    return message


def at_once(*producers: Producer) -> None:
    threads = [threading.Thread(target=each.send, args=(made("two"),)) for each in producers for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def poll(count: int) -> None:
    deadline = time.monotonic() + 60
    while count:
        assert time.monotonic() < deadline
        try:
            messages = polling.receive(32, 30)
        except ClientException:  # the broker may not know this consumer yet
            time.sleep(0.1)
            continue
        for message in messages:
            with process(message):
                polling.ack(message)
        count -= len(messages)


configuration = ClientConfiguration(endpoints, Credentials())
everything = {topic: FilterExpression()}
push = PushConsumer(configuration, push_group, Listener(), everything)
polling = SimpleConsumer(configuration, poll_group, everything, await_duration=5)
first, second = Producer(configuration, (topic,)), Producer(configuration, (topic,))
clients = (push, polling, first, second)
for client in clients:
    client.startup()

at_once(first, second)

RocketMQInstrumentor().instrument()  # the agent has done it
first.send(made("twice"))
RocketMQInstrumentor().instrument_client(first)
RocketMQInstrumentor().instrument_client(first)
RocketMQInstrumentor().instrument_client(push)
first.send(made("twice"))

with suppress_instrumentation():
    first.send(made("suppressed"))
    first.send_async(made("suppressed")).result(30)
    for case, properties in BAD.items():
        second.send(made(case, **properties))
RocketMQInstrumentor().uninstrument_client(second)
second.send(made("left-alone"))

again = made("again", mine="1")
again.keys = "a-key"
for _ in range(3):
    first.send(again)
print("again", again.properties, flush=True)

try:
    failing = made("fails")
    failing.message_group = "a group, in a topic without"
    first.send(failing)
except ClientException as error:
    print(type(error).__name__, flush=True)

before = 6 + 2 + 2 + len(BAD) + 1 + 3
await_arrivals(before)
poll(before)
future = first.send_async(made("under-way"))
RocketMQInstrumentor().uninstrument()
future.result(30)
for producer in (first, second):
    producer.send(made("after"))
await_arrivals(3)
poll(3)
print("done", flush=True)
for client in clients:
    client.shutdown()
