"""A plain RocketMQ push consumer that takes a message and never is done with it. Ends with its standard input."""

from __future__ import annotations

import sys
import threading

from rocketmq import ClientConfiguration, ConsumeResult, Credentials, FilterExpression, MessageListener, PushConsumer


class Listener(MessageListener):  # type: ignore[misc]
    def consume(self, message: object) -> ConsumeResult:
        threading.Event().wait()
        return ConsumeResult.SUCCESS


if __name__ == "__main__":
    endpoints, group, topic = sys.argv[1:]
    configuration = ClientConfiguration(endpoints, Credentials())
    PushConsumer(configuration, group, Listener(), {topic: FilterExpression()}, consumption_thread_count=1).startup()
    sys.stdin.read()
    sys.exit()
