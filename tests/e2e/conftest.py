"""Gateways and devices that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spanbridge.devstack.mqtt import MqttBroker
from spanbridge.devstack.pytest_plugin import SharedStack

from .commands import Commander, Receiver
from .made import devices, gateways

__all__ = ["commander", "devices", "gateways", "receivers"]


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
