"""A paho-mqtt program that goes through cases; started under ``opentelemetry-instrument``, told by its exports.

Prints ``ready``, waits for a line (somebody else publishes to ``<prefix>/bad`` meanwhile), then goes through the rest.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from opentelemetry.instrumentation.utils import suppress_instrumentation
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge_instrumentation.paho import PahoInstrumentor

host, port, prefix = sys.argv[1:4]
arrived = threading.Semaphore(0)


def await_arrivals(count: int) -> None:
    for _ in range(count):
        assert arrived.acquire(timeout=30)


def on_message(client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
    arrived.release()
    if message.topic.endswith("/raises"):
        raise ValueError(message.topic)


def connected(name: str, subscribe: str | None = None) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"{prefix}-{name}", protocol=mqtt.MQTTv5)
    client.suppress_exceptions = True
    done = threading.Event()
    client.on_message = on_message
    client.on_connect = lambda *_: done.set()
    client.on_subscribe = lambda *_: done.set()
    client.connect(host, int(port))
    client.loop_start()
    assert done.wait(30)
    if subscribe is not None:
        done.clear()
        client.subscribe(subscribe, qos=1)
        assert done.wait(30)
    return client


def publish(client: mqtt.Client, case: str, count: int, **more: Any) -> None:
    """QoS 1; returns when all are acknowledged and have arrived."""
    infos = [client.publish(f"{prefix}/{case}", b"x", qos=1, **more) for _ in range(count)]
    for info in infos:
        info.wait_for_publish(30)
    await_arrivals(count)


def at_once(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


consumer, first, second = connected("consumer", f"{prefix}/#"), connected("first"), connected("second")
print("ready", flush=True)
await_arrivals(int(sys.stdin.readline()))

at_once(lambda: publish(first, "two/first", 5), lambda: publish(second, "two/second", 5))

PahoInstrumentor().instrument()  # the agent has done it
publish(first, "twice", 3)
PahoInstrumentor().instrument_client(first)
PahoInstrumentor().instrument_client(first)
publish(first, "twice", 3)

with suppress_instrumentation():
    publish(first, "suppressed", 3)
PahoInstrumentor().uninstrument_client(second)
publish(second, "left-alone", 3)

reused = Properties(PacketTypes.PUBLISH)
reused.UserProperty = ("mine", "1")
publish(first, "reused", 10, properties=reused)
print("reused", reused.UserProperty, flush=True)

for number in range(200):
    first.publish(f"{prefix}/many/d{number}/state", b"x", qos=1)
await_arrivals(200)

publish(first, "raises", 1)
unconnected = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
unconnected.publish(f"{prefix}/fails", b"x")

publish(first, "before", 1)
PahoInstrumentor().uninstrument()
publish(first, "after", 3)
publish(connected("third"), "after", 3)
print("done", flush=True)
for client in (consumer, first, second):
    client.disconnect()
    client.loop_stop()
