"""Gateways and devices that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.pytest_plugin import SharedStack

from .commands import Commander, Receiver
from .harness import Device, Gateway


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways from TOML; all are ended after the test."""
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


@pytest.fixture
def commander(devstack: SharedStack) -> Iterator[Commander]:
    with Commander(devstack.rocketmq.endpoints) as made:
        yield made


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    """Makes devices that subscribe; all are disconnected after the test."""
    made: list[Receiver] = []

    def make(broker: MqttBroker, *filters: str, **options: Any) -> Receiver:
        made.append(Receiver((broker.host, broker.port), filters, **options))
        return made[-1]

    yield make
    for receiver in made:
        receiver.leave()
