"""Fakes of the ports, for the downlink's own decisions. Behaviour at the rim is tested on real brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from spanbridge.core.delivery import Delivery
from spanbridge.core.downlinks import Downlink
from spanbridge.core.errors import SinkError, SinkUnavailable
from spanbridge.core.message import Message, Publish
from spanbridge.core.template import DOWN, Template
from spanbridge.downlink import Outbound
from spanbridge.ports import Deliver, Link, PeerStatus, Published, Released
from tests.fakes import StandingTime


class FakeTime(StandingTime):
    """Those that sleep wake up when the test has let enough of it pass."""

    def __init__(self) -> None:
        super().__init__()
        self._sleeping: list[tuple[int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.now + int(seconds * 1e9), woken))
        await woken

    @property
    def sleeping(self) -> list[float]:
        """Seconds until those that sleep wake up."""
        return [(until - self.now) / 1e9 for until, woken in self._sleeping if not woken.done()]

    def pass_(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)
        for until, woken in self._sleeping:
            if until <= self.now and not woken.done():
                woken.set_result(None)


class QueueDelivery(Delivery[Message]):
    """A delivery that the test knows by its message id."""

    __slots__ = ("__weakref__",)

    @property
    def id(self) -> str:
        return self.message.message_id


class FakeQueue:
    """A source that the test feeds. Every delivery is to be answered once; a second answer fails the test."""

    def __init__(self, name: str = "queue") -> None:
        self.name = name
        self.acked: list[str] = []
        self.nacked: list[str] = []
        self.rejected: list[str] = []
        self.given_back: list[str] = []
        self.causes: list[str] = []
        self.reading = True
        self.steps: list[str] = []
        self.open: dict[Delivery[Message], None] = {}
        self.closed = asyncio.Event()
        self._deliver: Deliver[Message] | None = None

    @property
    def running(self) -> bool:
        return self._deliver is not None

    @property
    def status(self) -> PeerStatus:
        return PeerStatus(self.name, Link.UP, 0, None, {})

    @property
    def unacked(self) -> int:
        return len(self.open)

    held = unacked

    @property
    def held_bytes(self) -> int:
        return sum(one.size for one in self.open)

    def oldest_ns(self) -> int | None:
        return min((one.arrived_ns for one in self.open), default=None)

    def unrepeatable(self) -> list[Delivery[Message]]:
        return []

    async def run(self, deliver: Deliver[Message], released: Released) -> None:
        del released
        self._deliver = deliver
        await self.closed.wait()

    def deliver(self, deliveries: Sequence[QueueDelivery]) -> None:
        assert self._deliver is not None
        self.open.update(dict.fromkeys(deliveries))
        self._deliver(list(deliveries))

    def _answer(self, deliveries: Sequence[Delivery[Message]], kept: list[str]) -> None:
        for one in deliveries:
            del self.open[one]
            kept.append(one.message.message_id)

    def ack(self, deliveries: Sequence[Delivery[Message]]) -> None:
        self._answer(deliveries, self.acked)

    def nack(self, deliveries: Sequence[Delivery[Message]], cause: str) -> None:
        self._answer(deliveries, self.nacked)
        self.causes.append(cause)

    def reject(self, deliveries: Sequence[Delivery[Message]], cause: str) -> None:
        self._answer(deliveries, self.rejected)
        self.causes.append(cause)

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    async def stop_intake(self) -> None:
        self.steps.append("stop_intake")

    async def give_back(self) -> None:
        self.steps.append("give_back")
        self._answer(list(self.open), self.given_back)

    async def close(self) -> None:
        self.steps.append("close")
        self.closed.set()


class FakePublisher:
    """A publisher whose answers the test gives: ``answer`` some, or ``at_once`` all as they come."""

    def __init__(self, name: str = "broker") -> None:
        self.name = name
        self.published: list[Publish] = []
        self.calls: list[int] = []
        self.at_once: SinkError | bool = False
        self.failing: Exception | None = None
        self.waiting: list[tuple[Outbound, Published[Outbound]]] = []
        self.closed = asyncio.Event()
        self.running = False

    @property
    def status(self) -> PeerStatus:
        return PeerStatus(self.name, Link.UP, 0, None, {})

    @property
    def in_flight(self) -> int:
        return len(self.waiting)

    async def run(self) -> None:
        assert not self.running, "it runs once, whoever uses it"
        self.running = True
        await self.closed.wait()

    def publish(self, publications: Sequence[Outbound], published: Published[Outbound]) -> None:
        if self.failing is not None:
            raise self.failing
        self.calls.append(len(publications))
        self.published += [one.publish for one in publications]
        if self.at_once is not False:
            published(publications, None if self.at_once is True else self.at_once)
        else:
            self.waiting += [(one, published) for one in publications]

    def answer(self, error: SinkError | None = None, count: int | None = None) -> None:
        """Answer the first ``count`` that wait, all of them by default, in one call."""
        count = len(self.waiting) if count is None else count
        answered, self.waiting = self.waiting[:count], self.waiting[count:]
        callbacks = dict.fromkeys(callback for _, callback in answered)
        for callback in callbacks:
            callback([one for one, its in answered if its == callback], error)

    def topics(self) -> list[str]:
        return [publish.topic for publish in self.published]

    async def close(self) -> None:
        self.answer(SinkUnavailable("closed"))
        self.closed.set()


def downlink(publish: str = "devices/{key}/commands", **settings: Any) -> Downlink:
    fields = {"name": "commands", "topic": "commands", "group": "gw", "broker": "plant"} | settings
    return Downlink(publish=Template.parse(publish, DOWN), **fields)
