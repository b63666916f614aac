"""Gateways of several processes, and a RocketMQ that only counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Device, Gateway
from tests.rocketmq.fake_proxy import FakeProxy


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


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways from TOML; all are ended after the test. A supervisor that is killed takes its workers along."""
    made: list[Gateway] = []

    def make(config: str, environment: dict[str, str] | None = None) -> Gateway:
        directory = tmp_path / f"gateway-{len(made)}"
        directory.mkdir()
        made.append(Gateway(directory, config, environment))
        return made[-1]

    yield make
    for gateway in made:
        gateway.end()


@pytest.fixture
def devices() -> Iterator[Callable[..., Device]]:
    """Makes connected devices; all are disconnected after the test."""
    made: list[Device] = []

    def make(host: str, port: int, **options: str) -> Device:
        made.append(Device(host, port, **options))
        return made[-1]

    yield make
    for device in made:
        device.close()
