"""Gateways of several processes, and a RocketMQ that only counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.made import devices, gateways
from tests.rocketmq.fake_proxy import FakeProxy

__all__ = ["counting_rocketmq", "devices", "gateways"]


class CountingRocketmq:
    """A fake proxy in a thread of its own, for gateways that are processes."""

    def __init__(self) -> None:
        self.proxy = FakeProxy()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.proxy.start(), self._loop).result(30)

    @property
    def bodies(self) -> list[str]:
        """What was stored, in that order."""
        return [body.decode() for body in self.proxy.bodies]

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.proxy.stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture
def counting_rocketmq() -> Iterator[CountingRocketmq]:
    rocketmq = CountingRocketmq()
    yield rocketmq
    rocketmq.stop()
