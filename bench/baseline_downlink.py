"""The bridge from RocketMQ to MQTT that a Python user would write today, as a fair opponent.

rocketmq-python-client's ``SimpleConsumer`` receives up to 32 messages, paho-mqtt publishes each with QoS 1 to the
topic of its key, and what the MQTT broker has acknowledged is acknowledged to RocketMQ. Several threads do this side
by side: the client waits for one call at a time. Contexts and properties are not looked at. What is not acknowledged
RocketMQ brings again.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from rocketmq import ClientConfiguration, Credentials, FilterExpression, SimpleConsumer

BATCH = 32
INVISIBLE = 60
"""Seconds."""
THREADS = 4


class CommandBridge:
    """RocketMQ to MQTT, call by call."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._ended = threading.Event()
        self._consumer = SimpleConsumer(
            ClientConfiguration(options.endpoints, Credentials()),
            options.topic,
            {options.topic: FilterExpression()},
        )
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, options.client_id, protocol=mqtt.MQTTv5)
        self._mqtt.max_inflight_messages_set(BATCH * options.threads)
        self._threads = [threading.Thread(target=self._forward, daemon=True) for _ in range(options.threads)]

    def start(self) -> None:
        """Connect both sides; messages flow from here on."""
        self._mqtt.connect(self._options.host, self._options.port, clean_start=True)
        self._mqtt.loop_start()
        self._consumer.startup()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more; what is under way comes again."""
        self._ended.set()
        self._mqtt.disconnect()
        self._mqtt.loop_stop()
        self._consumer.shutdown()

    def _forward(self) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())  # the client makes asyncio's futures in any thread
        while not self._ended.is_set():
            try:
                messages = self._consumer.receive(BATCH, INVISIBLE)
            except Exception as error:
                print(f"receive: {error}", flush=True)
                self._ended.wait(0.1)
                continue
            published = [
                self._mqtt.publish(f"{self._options.publish}/{next(iter(message.keys))}", message.body, qos=1)
                for message in messages
            ]
            for info, message in zip(published, messages, strict=True):
                info.wait_for_publish(10)
                if info.is_published():
                    self._consumer.ack_async(message)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--endpoints", required=True, help="HOST:PORT of RocketMQ's gRPC proxy")
    parser.add_argument("--topic", required=True, help="RocketMQ topic, and consumer group")
    parser.add_argument("--publish", required=True, help="MQTT topic before the last level, which is the key")
    parser.add_argument("--threads", type=int, default=THREADS)
    options = parser.parse_args()
    bridge = CommandBridge(options)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    bridge.start()
    ended.wait()
    bridge.stop()


if __name__ == "__main__":
    main()
