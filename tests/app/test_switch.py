"""One sink takes the place of another; services start and stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spanbridge.app.services import Services
from spanbridge.app.switch import SinkSwitch
from spanbridge.core.message import Destination
from tests.fakes import FakeReporter
from tests.uplink.fakes import FakeSink

pytestmark = pytest.mark.anyio


class FakeProducer(FakeSink):
    """A sink that closes once what is in flight is through, as producers do."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.expected: tuple[Any, Any] = ((), ())
        self._sending = 0

    def expect(self, topics: Any, kinds: Any) -> None:
        self.expected = (topics, kinds)

    async def send(self, topic: str, partition: int, batch: Any) -> None:
        self._sending += 1
        await super().send(topic, partition, batch)
        self._sending -= 1

    async def close(self) -> None:
        while self._sending:
            await asyncio.sleep(0)
        self.closed = True


async def test_sends_go_to_the_new_one_and_the_old_one_closes_after_what_it_has_under_way() -> None:
    old, new = FakeProducer(), FakeProducer()
    switch = SinkSwitch(old)
    old.gate.clear()
    first = switch.head(Destination("t")).encode(b"1", "", (), 0)
    sending = asyncio.create_task(switch.send("t", -1, [first]))
    await asyncio.sleep(0)
    switch.use(new)
    await switch.send("t", -1, [switch.head(Destination("t")).encode(b"2", "", (), 0)])
    assert ([one.body for one in new.stored], old.closed) == ([b"2"], False)
    switch.expect(("t",), (("t", "NORMAL"),))
    assert (new.expected, old.expected) == ((("t",), (("t", "NORMAL"),)), ((), ()))
    old.gate.set()
    await sending
    await switch.close()
    assert [one.body for one in old.stored] == [b"1"]
    assert (old.closed, new.closed) == (True, True)


class FakeService:
    """Writes down what it is asked."""

    def __init__(self, name: str, calls: list[str], *, fault: bool = False) -> None:
        self.name = name
        self._calls = calls
        self._fault = fault

    async def start(self) -> None:
        self._calls.append(f"start {self.name}")

    async def stop(self) -> None:
        self._calls.append(f"stop {self.name}")
        if self._fault:
            raise RuntimeError("a bug")

    def status(self) -> dict[str, Any]:
        return {"calls": len(self._calls)}


async def test_services_start_in_order_and_stop_in_reverse_whatever_happens_to_one() -> None:
    calls: list[str] = []
    reporter = FakeReporter()
    services = Services([FakeService("a", calls), FakeService("b", calls, fault=True)], reporter)
    await services.start()
    assert services.status() == {"a": {"calls": 2}, "b": {"calls": 2}}
    await services.stop()
    assert calls == ["start a", "start b", "stop b", "stop a"]
    assert reporter.names() == ["services.stop_failures"]
