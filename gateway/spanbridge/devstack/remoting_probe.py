"""RocketMQ without a proxy: readiness (a message has gone round), and a look at what a topic holds."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator

from spanbridge.devstack.probe import NotYet
from spanbridge.rocketmq.remoting.admin import max_offset
from spanbridge.rocketmq.remoting.blocking import BlockingClient
from spanbridge.rocketmq.remoting.errors import RemotingError
from spanbridge.rocketmq.remoting.frame import AclKeys
from spanbridge.rocketmq.remoting.pull import pull
from spanbridge.rocketmq.remoting.send import WriteQueue, send_message
from spanbridge.rocketmq.remoting.stored import StoredMessage

_LOOK_SECONDS = 0.1


class RemotingProbe:
    """Sends to a broker and reads from it, one call after the other, without joining the group.

    Args:
        address: ``host:port`` of the broker.
        topic: for :meth:`round` one with a queue 0 that takes messages.
        group: a consumer group that the broker knows.
    """

    def __init__(self, address: str, topic: str, group: str, *, keys: AclKeys | None = None) -> None:
        self._address = address
        self._topic = topic
        self._group = group
        self._keys = keys

    def round(self) -> None:
        """Send one message and read it.

        Raises:
            NotYet: it could not be sent, or was not there within a few seconds.
        """
        mark = uuid.uuid4().hex.encode()
        try:
            with BlockingClient(self._address, keys=self._keys) as client:
                offset = client.ask(max_offset(self._topic, 0))
                queue = WriteQueue("", 0)
                client.ask(send_message(self._topic, queue, mark, "", str(time.time_ns() // 1_000_000)))
                self._read(client, offset, mark)
        except RemotingError as error:
            raise NotYet(f"broker on {self._address}: {error}") from error

    def _read(self, client: BlockingClient, offset: int, mark: bytes) -> None:
        for _ in range(30):  # the broker builds its index behind the store
            pulled = client.ask(pull(self._group, self._topic, 0, offset))
            if any(message.body == mark for message in pulled.messages):
                return
            time.sleep(_LOOK_SECONDS)
        raise NotYet("the message that was sent has not come back")

    def messages(self, queues: int, *, wait: float = math.inf, limit: int | None = None) -> Iterator[StoredMessage]:
        """What the topic holds and then receives, from its beginning: nothing is committed, so each look sees all.

        Args:
            queues: how many the topic has.
            wait: end when no message came for so many seconds.
            limit: end after so many messages.

        Raises:
            NotYet: the broker cannot be asked, or refuses.
        """
        offsets = dict.fromkeys(range(queues), 0)
        left = math.inf if limit is None else limit
        deadline = time.monotonic() + wait
        try:
            with BlockingClient(self._address, keys=self._keys) as client:
                while left > 0 and time.monotonic() < deadline:
                    found = self._look(client, offsets)
                    for message in found[: None if limit is None else int(left)]:
                        yield message
                        left -= 1
                        deadline = time.monotonic() + wait
                    if not found:
                        time.sleep(_LOOK_SECONDS)
        except RemotingError as error:
            raise NotYet(f"broker on {self._address}: {error}") from error

    def _look(self, client: BlockingClient, offsets: dict[int, int]) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        for queue, offset in offsets.items():
            pulled = client.ask(pull(self._group, self._topic, queue, offset))
            offsets[queue] = pulled.next_offset
            found += pulled.messages
        return sorted(found, key=lambda message: message.store_ms)
