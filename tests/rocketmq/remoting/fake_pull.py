"""A broker without POP, and a consumer that pulls from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from spanbridge.rocketmq.remoting.codes import RequestCode, ResponseCode
from spanbridge.rocketmq.remoting.consumer import RemotingConsumer
from spanbridge.rocketmq.remoting.frame import Frame
from spanbridge.rocketmq.remoting.stored import StoredMessage
from tests.rocketmq.consuming import Taker

from .fake_pop import FakePopBroker, popping
from .test_stored import stored

RETRY = "%RETRY%g"


class FakePullBroker(FakePopBroker):
    """One queue of the topic, and one of the group's retry topic. ``committed`` is what the group has told it.

    While ``taken`` is true both queues are another's.
    """

    def __init__(self, name: str, *, orderly: bool = False) -> None:
        super().__init__(name)
        policy = {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [1000]}}
        self.settings |= {"consumeMessageOrderly": orderly, "groupRetryPolicy": policy}
        self.taken = False
        self.committed: dict[str, int] = {}
        self.queues: dict[str, dict[int, StoredMessage]] = {"t": {}, RETRY: {}}
        self.moved = 0
        """How often it was asked for what it does not have."""
        self._client = ""

    def store(self, offset: int, name: bytes, *, topic: str = "t", attempts: int = 0, tag: str = "") -> None:
        """Have a message, whose body is its id, at a place."""
        raw = f"UNIQ_KEY\x01{name.decode()}\x02" + (f"TAGS\x01{tag}\x02" if tag else "")
        self.queues[topic][offset] = StoredMessage(
            topic, 0, offset, 1000 + offset, 0, 1, 2, attempts, name, raw.encode()
        )
        self._arrived.set()

    def end(self, topic: str) -> int:
        return max(self.queues[topic], default=-1) + 1

    async def answer(self, request: Frame) -> Frame | None:
        fields = request.fields
        if request.code in self.refuses:
            return await super().answer(request)
        match request.code:
            case RequestCode.PULL_MESSAGE:
                self.asked.append(request)
                return await self._pull(request, fields["topic"], int(fields["queueOffset"]))
            case RequestCode.GET_MAX_OFFSET:
                return self._number(request, self.end(fields["topic"]))
            case RequestCode.QUERY_CONSUMER_OFFSET:
                return self._number(request, self.committed.get(fields["topic"], 0))
            case RequestCode.UPDATE_CONSUMER_OFFSET:
                self.committed[fields["topic"]] = int(fields["commitOffset"])
                return request.response(ResponseCode.SUCCESS)
            case RequestCode.GET_CONSUMER_LIST_BY_GROUP:
                members = ["another"] if self.taken else [self._client]
                return request.response(ResponseCode.SUCCESS, body=json.dumps({"consumerIdList": members}).encode())
            case RequestCode.LOCK_BATCH_MQ:
                wanted = json.loads(request.body)["mqSet"]
                return request.response(ResponseCode.SUCCESS, body=json.dumps({"lockOKMQSet": wanted}).encode())
            case RequestCode.HEART_BEAT:
                self._client = json.loads(request.body)["clientID"]
        return await super().answer(request)

    def _number(self, request: Frame, offset: int) -> Frame:
        return Frame(code=0, opaque=request.opaque, flag=1, fields={"offset": str(offset)})

    async def _pull(self, request: Frame, topic: str, offset: int) -> Frame:
        queue, end = self.queues[topic], self.end(topic)
        if offset > end:
            self.moved += 1
            return self._pulled(request, ResponseCode.PULL_OFFSET_MOVED, end)
        with suppress(TimeoutError):
            async with asyncio.timeout(int(request.fields["suspendTimeoutMillis"]) / 1000):
                while not any(at >= offset for at in queue):
                    self._arrived.clear()
                    await self._arrived.wait()
        found = [queue[at] for at in sorted(queue) if at >= offset][:32]
        if not found:
            return self._pulled(request, ResponseCode.PULL_NOT_FOUND, offset)
        answer = self._pulled(request, ResponseCode.SUCCESS, found[-1].queue_offset + 1)
        return Frame(code=0, opaque=answer.opaque, flag=1, fields=answer.fields, body=b"".join(map(stored, found)))

    def _pulled(self, request: Frame, code: ResponseCode, following: int) -> Frame:
        fields = {"nextBeginOffset": str(following), "minOffset": "0", "maxOffset": "0"}
        return Frame(code=code, opaque=request.opaque, flag=1, fields=fields)


def look(taker: Taker) -> None:
    """Have the consumer look at who is in its group, as when a broker tells that it has changed."""
    assert isinstance(taker.source, RemotingConsumer)
    taker.source._asked(Frame(code=RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, opaque=1))


def failing(taker: Taker) -> str | None:
    """Why a broker lets us receive nothing."""
    assert isinstance(taker.source, RemotingConsumer)
    return taker.source._failing


def offset_of(taker: Taker) -> int:
    """Before which offset of the topic's queue everything is handled."""
    receivers = taker.source._way._receivers  # type: ignore[attr-defined]
    (offset,) = [one.progress.offset for queue, one in receivers.items() if queue.topic == "t"]
    return int(offset)


@asynccontextmanager
async def pulling(broker: FakePullBroker, **options: Any) -> AsyncIterator[Taker]:
    """A consumer of group ``g`` and topic ``t`` that pulls from it."""
    async with popping(broker, receive_by="pull", **options) as (taker, _):
        yield taker
