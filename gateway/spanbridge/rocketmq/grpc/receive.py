"""Receiving from one broker: long polls one after the other, two at once while messages come, more while full."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from spanbridge.core.errors import SinkError, bare
from spanbridge.core.message import Message
from spanbridge.core.retry import Backoff
from spanbridge.ports import Received, Reporter
from spanbridge.rocketmq.background import guarded
from spanbridge.rocketmq.errors import build
from spanbridge.rocketmq.grpc.answers import OK, UNDECODABLE
from spanbridge.rocketmq.grpc.brokers import Brokers
from spanbridge.rocketmq.grpc.calls import LARGEST_ANSWER
from spanbridge.rocketmq.grpc.decode import beginning
from spanbridge.rocketmq.grpc.http2.frames import MessageBeginning
from spanbridge.rocketmq.grpc.stubs import definition, service
from spanbridge.rocketmq.grpc.subscription import SHORTEST_POLL, GroupSubscription
from spanbridge.rocketmq.options import ConsumerOptions

_NOTHING: int = definition.Code.MESSAGE_NOT_FOUND
_MESSAGE = b"\x12"
"""The first byte of a ``ReceiveMessageResponse`` with a message. protobuf is asked for all else."""
_TAKEN = 1.0
"""Seconds after which a call counts as taken: what a proxy refuses (a missing group or topic), it refuses at once."""
_SLACK = 20.0
"""Seconds by which a call's deadline exceeds its long poll: for what it brings to come over a slow link."""
_WAITING = 2
"""Calls that wait at a broker while messages come: one for what comes while the other's answer is on its way."""
_LAST = 5.0
"""Seconds for an answer that has begun to come in when the receiver is stopped."""


class Inbox(Protocol):
    """Where received messages go, and what says whether more may come."""

    open: asyncio.Event
    """Set while messages are wanted."""

    def take(self, broker: str, messages: list[Any], began_ns: int, fault: str | None = None) -> list[Message]:
        """Take ``Message``s of definition.proto asked for at a moment (monotonic, ns). Never raises.

        ``fault``: why they come without their bodies.
        """

    def works(self, broker: str) -> None:
        """A call ended as it should, or waits for messages."""

    def fails(self, broker: str, error: SinkError, retry_in: float) -> None:
        """A call failed."""


class Reception:
    """One call: what has come of it so far."""

    __slots__ = ("began_ns", "broken", "broker", "inbox", "messages", "started_ns", "status", "touched")

    def __init__(self, broker: str, inbox: Inbox) -> None:
        self.broker = broker
        self.inbox = inbox
        self.started_ns = time.time_ns()
        self.began_ns = time.monotonic_ns()
        self.messages: list[Message] = []
        self.status: Any = None
        self.broken = False
        self.touched = False
        """Whether any part of the answer has come."""

    def arrived(self, frames: list[bytes]) -> None:
        """Take the frames of one read."""
        self.touched = True
        messages: list[Any] = []
        read = service.ReceiveMessageResponse.FromString
        for frame in frames:
            if isinstance(frame, MessageBeginning):
                self._take(messages)
                messages = []
                self._take_without_body(frame)
                continue
            try:
                response = read(frame)
            except DecodeError:
                self.broken = True
                continue
            if frame[:1] == _MESSAGE:
                messages.append(response.message)
            elif response.HasField("status"):
                self.status = response.status
        self._take(messages)

    def _take(self, messages: list[Any], fault: str | None = None) -> None:
        if messages:
            self.messages += self.inbox.take(self.broker, messages, self.began_ns, fault)

    def _take_without_body(self, start: bytes) -> None:
        """A message that is too large is handed over without its body, so that it alone is rejected."""
        message = beginning(start)
        if message is None:
            self.broken = True
        else:
            self._take([message], f"it is larger than {LARGEST_ANSWER} bytes")


class Receiver:
    """Receives from one broker until it is stopped."""

    def __init__(
        self,
        broker: str,
        *,
        options: ConsumerOptions,
        subscription: GroupSubscription,
        brokers: Brokers,
        inbox: Inbox,
        reporter: Reporter,
        received: Received,
    ) -> None:
        self.broker = broker
        self._options = options
        self._subscription = subscription
        self._brokers = brokers
        self._inbox = inbox
        self._reporter = reporter
        self._received = received
        self._attempt_id = uuid.uuid4().hex
        self._what = f"receiving for group {options.group!r} from topic {options.topic!r}"
        self._requests: dict[tuple[float, int], bytes] = {}
        """Requests that say no attempt id, by their long poll and batch."""
        self._stopping = False
        self._tasks: dict[asyncio.Task[None], Reception | None] = {}

    def start(self) -> None:
        """Begin to receive."""
        self._add(self._keep)

    def _add(self, work: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _keep(self) -> None:
        """One call after the other, for ever."""
        backoff = Backoff(self._options.backoff_initial, self._options.backoff_maximum)
        while not self._stopping:
            await self._inbox.open.wait()
            pause = self._options.backoff_maximum
            with guarded("receiving", self._reporter):
                try:
                    brought = await self._receive(self._subscription.long_poll)
                except SinkError as error:
                    pause = backoff.next_delay(random.random())  # noqa: S311 - jitter
                    self._inbox.fails(self.broker, bare(error), pause)
                else:
                    backoff.reset()
                    self._inbox.works(self.broker)
                    self._ask_beside(brought)
                    continue
            if self._stopping:
                return
            await asyncio.sleep(pause)

    def _ask_beside(self, brought: int) -> None:
        """While messages come, two calls are under way; while calls come back full, several. Order allows but one."""
        if not brought or self._stopping or self._subscription.fifo:
            return
        full = brought >= self._subscription.batch
        if len(self._tasks) < (self._options.calls if full else min(_WAITING, self._options.calls)):
            self._add(self._help)

    async def _help(self) -> None:
        """As long as calls bring something; the third and further ones, as long as they come back full."""
        with guarded("receiving", self._reporter):
            try:
                while self._inbox.open.is_set() and not self._stopping:
                    brought = await self._receive(SHORTEST_POLL)
                    if not brought or (brought < self._subscription.batch and len(self._tasks) > _WAITING):
                        return
                    self._ask_beside(brought)
            except SinkError:
                return  # the other one meets it as well

    async def _receive(self, long_poll: float) -> int:
        """One call; how many messages it brought.

        :raises SinkError: it failed, perhaps after it brought some.
        """
        endpoint = await self._brokers.endpoint(self.broker)
        reception, what = Reception(self.broker, self._inbox), self._what
        request = self._request(long_poll)
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = reception
        # A call that is not refused at once is a long poll, and its end may be 20 s away.
        taken = asyncio.get_running_loop().call_later(_TAKEN, self._inbox.works, self.broker)
        try:
            await endpoint.calls.call("ReceiveMessage", request, reception.arrived, what, long_poll + _SLACK)
            if reception.broken:
                raise build(UNDECODABLE, what, endpoint.address, "messages that do not decode")
            status = reception.status
            if status is not None and status.code not in {OK, _NOTHING}:
                raise endpoint.refused(status, what)
        finally:
            taken.cancel()
            self._tasks[task] = None
            if reception.messages:
                self._received(reception.messages, reception.started_ns, time.time_ns())
        if reception.messages and self._subscription.fifo:
            # A FIFO group's broker answers the same id with the same messages, which is how those of an answer that
            # was lost come at once; another id finds the queue locked until their invisible time has passed.
            self._attempt_id = uuid.uuid4().hex
        return len(reception.messages)

    def _request(self, long_poll: float) -> bytes:
        subscription = self._subscription
        if subscription.fifo:
            return self._made_request(long_poll, self._attempt_id)
        kind = (long_poll, subscription.batch)
        request = self._requests.get(kind)
        if request is None:
            request = self._requests[kind] = self._made_request(long_poll, None)
        return request

    def _made_request(self, long_poll: float, attempt_id: str | None) -> bytes:
        subscription = self._subscription
        request = service.ReceiveMessageRequest(
            group=subscription.group, filter_expression=subscription.filter, batch_size=subscription.batch
        )
        request.message_queue.topic.CopyFrom(subscription.topic)
        request.message_queue.broker.name = self.broker
        request.invisible_duration.FromMilliseconds(int(self._options.invisible * 1000))
        request.long_polling_timeout.FromMilliseconds(int(long_poll * 1000))
        if attempt_id is not None:
            request.attempt_id = attempt_id
        raw: bytes = request.SerializeToString()
        return raw

    async def stop(self) -> None:
        """End calls that have brought nothing yet; wait for those that have begun to."""
        self._stopping = True
        tasks = dict(self._tasks)
        for task, reception in tasks.items():
            if reception is None or not reception.touched:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
