"""Reads messages and queue offsets straight from a RocketMQ broker, over its remoting protocol.

The gRPC proxy hands messages out far slower than the gateway writes them. The broker's own protocol lets the benchmark
read every stored message back, with the time it was stored, without a consumer group's state and in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

from spanbridge.rocketmq.remoting import admin
from spanbridge.rocketmq.remoting.blocking import BlockingClient
from spanbridge.rocketmq.remoting.errors import RemotingError
from spanbridge.rocketmq.remoting.frame import AclKeys
from spanbridge.rocketmq.remoting.pull import pull
from spanbridge.rocketmq.remoting.stored import StoredMessage as Stored

__all__ = ["Broker", "RemotingError", "Stored"]

_GROUP = "spanbridge-bench-reader"
_PULL_COUNT = 1024  # the broker caps it further (maxTransferCountOnMessageInMemory)


class Broker:
    """A connection to a broker's remoting port. Not thread-safe; closed by ``with``."""

    def __init__(self, address: str, timeout: float = 10.0, keys: AclKeys | None = None) -> None:
        self._client = BlockingClient(address, timeout=timeout, keys=keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(None, None, None)

    def max_offsets(self, topic: str, queues: int) -> list[int]:
        """For each queue the offset that the next message will get.

        :raises RemotingError: the broker refused.
        """
        return self._client.ask_all(admin.max_offset(topic, queue) for queue in range(queues))

    def read(self, topic: str, begin: Iterable[int], end: Iterable[int]) -> Iterator[Stored]:
        """All messages of a topic between two lists of offsets, one entry for each queue; ``end`` is excluded.

        :raises RemotingError: the broker refused, or a message between the offsets cannot be read.
        """
        at, stop = list(begin), list(end)
        while pending := [queue for queue in range(len(at)) if at[queue] < stop[queue]]:
            calls = [pull(_GROUP, topic, queue, at[queue], at_most=_PULL_COUNT) for queue in pending]
            for queue, pulled in zip(pending, self._client.ask_all(calls), strict=True):
                if not pulled.messages:
                    raise RemotingError(f"{topic}, queue {queue}: nothing is stored at offset {at[queue]}")
                yield from (message for message in pulled.messages if message.queue_offset < stop[queue])
                at[queue] = pulled.next_offset
