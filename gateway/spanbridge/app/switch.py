"""A sink that another one can take the place of, while messages are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from spanbridge.core.message import Destination
from spanbridge.ports import Head, PeerStatus, Sink


class Producer(Sink[Destination], Protocol):
    """A sink that can be told which topics to expect."""

    def expect(self, topics: Sequence[str], kinds: Sequence[tuple[str, str]]) -> None:
        """Take these for the topics that are known in advance, each with the message type that it will be sent."""


class SinkSwitch:
    """Implements the ``Sink`` port by the producer that is current."""

    def __init__(self, producer: Producer) -> None:
        self._current = producer
        self._leaving: set[asyncio.Task[None]] = set()

    def use(self, producer: Producer) -> None:
        """Send by this one from now on. It has been started. The old one closes after what it has under way.

        Heads of the old one go on to encode; it is the caller's to ask for new ones.
        """
        old, self._current = self._current, producer
        task = asyncio.get_running_loop().create_task(old.close(), name="close former sink")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def expect(self, topics: Sequence[str], kinds: Sequence[tuple[str, str]]) -> None:
        """See :meth:`Producer.expect`."""
        self._current.expect(topics, kinds)

    @property
    def status(self) -> PeerStatus:
        """The current connection as of now."""
        return self._current.status

    async def start(self) -> None:
        """See :meth:`spanbridge.ports.Sink.start`."""
        await self._current.start()

    def head(self, destination: Destination) -> Head:
        """See :meth:`spanbridge.ports.Sink.head`."""
        return self._current.head(destination)

    async def send(self, topic: str, partition: int, batch: Sequence[bytes]) -> None:
        """See :meth:`spanbridge.ports.Sink.send`."""
        await self._current.send(topic, partition, batch)

    async def probe(self) -> None:
        """See :meth:`spanbridge.ports.Sink.probe`."""
        await self._current.probe()

    async def close(self) -> None:
        """Close the current one, and wait for those that are being closed."""
        await self._current.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)
