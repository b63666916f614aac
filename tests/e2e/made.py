"""Fixtures of gateways and devices that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import Device, Gateway


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
