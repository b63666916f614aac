"""A publisher under observation, and a peer that answers it as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from spanbridge.core.errors import SinkError
from spanbridge.core.events import Event
from spanbridge.core.message import Publish
from spanbridge.mqtt import PublisherOptions, create_publisher
from spanbridge.ports import Link
from tests.fakes import FakeReporter

from .conftest import DEADLINE, until


@dataclass(eq=False)
class Command:
    """A publication, and what became of it."""

    publish: Publish
    outcomes: list[SinkError | None] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return bool(self.outcomes)

    @property
    def error(self) -> SinkError:
        """Why it failed."""
        (outcome,) = self.outcomes
        assert outcome is not None
        return outcome


def command(topic: str, payload: bytes | str = b"", qos: int = 1, **fields: Any) -> Command:
    data = payload.encode() if isinstance(payload, str) else payload
    return Command(Publish(topic, data, qos, **fields))


class Publishing:
    """A running publisher, what became of what it was given, and what it reported."""

    def __init__(self, options: PublisherOptions) -> None:
        self.options = options
        self.reporter = FakeReporter()
        self.publisher = create_publisher(options, self.reporter)
        self.calls: list[tuple[list[Command], SinkError | None]] = []
        self.task: asyncio.Task[None] | None = None

    def published(self, commands: Sequence[Command], error: SinkError | None) -> None:
        self.calls.append((list(commands), error))
        for one in commands:
            one.outcomes.append(error)

    def send(self, *commands: Command) -> list[Command]:
        self.publisher.publish(commands, self.published)
        return list(commands)

    @property
    def link(self) -> Link:
        return self.publisher.status.link

    @property
    def detail(self) -> dict[str, Any]:
        return self.publisher.status.detail

    def start(self) -> None:
        self.task = asyncio.create_task(self.publisher.run())

    async def up(self) -> None:
        def is_up() -> bool:
            assert self.task is not None
            if self.task.done():
                self.task.result()
            return self.link is Link.UP

        await until(is_up, f"{self.options.name} up; events {[e.text() for e in self.reporter.events]}")

    async def done(self, commands: Sequence[Command], *, timeout: float = DEADLINE) -> None:
        """Wait until each has its outcome; each has one only."""
        left = lambda: [one for one in commands if not one.done]  # noqa: E731
        await until(lambda: not left(), f"{len(commands)} outcomes", timeout=timeout)
        assert {len(one.outcomes) for one in commands} <= {1}

    async def through(self, commands: Sequence[Command], *, timeout: float = DEADLINE) -> None:
        """Wait until the broker has each of them."""
        await self.done(commands, timeout=timeout)
        assert [one.outcomes for one in commands if one.outcomes != [None]] == []

    async def event(self, name: str, number: int = 1) -> Event:
        await until(lambda: len(self.reporter.of(name)) >= number, f"event {name}; have {self.reporter.events}")
        found: Event = self.reporter.of(name)[number - 1]
        return found

    async def stop(self) -> None:
        await self.publisher.close()
        if self.task is not None:
            async with asyncio.timeout(DEADLINE):
                await self.task
