"""Messages on disk while RocketMQ is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.spooled import Lost, Record
from spanbridge.ports.common import Service

Written = Callable[[int, SpanbridgeError | None], None]
"""The outcome of an append: the number of the first record, or why none of them is kept. Synchronous, never raises."""


class Spool(Service, Protocol):
    """Records on disk, numbered in the order in which they were appended. Nothing of it blocks the loop."""

    @property
    def first(self) -> int:
        """Records before this number are done, on the disk as well."""

    @property
    def end(self) -> int:
        """The number that the next record gets: all before it are on the disk."""

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""

    @property
    def limit(self) -> int:
        """Bytes that it may take."""

    @property
    def boot(self) -> str:
        """Names the time since the machine started."""

    def append(self, batch: Sequence[tuple[int, bytes]], written: Written) -> None:
        """Put records, as (kind, body), on the disk; ``written`` is told once they are there, or none of them is.

        The error's ``reason`` is ``full`` when there is no room. Never raises.
        """

    async def read(self, count: int, size: int) -> list[Record | Lost]:
        """The next records, up to about so many and so many bytes; empty at the end. One reader at a time.

        :raises SpanbridgeError: the disk fails; nothing was passed over.
        """

    def rewind(self, number: int) -> None:
        """Read from this record on."""

    def boot_of(self, number: int) -> str:
        """As :attr:`boot`, of the time when a record that was read was written; "" where that is not known."""

    def mark(self, number: int, *, tidy: bool = False) -> None:
        """Records before ``number`` are done, and may be removed; with ``tidy`` all their files are. Never raises."""

    async def drop_oldest(self, look: Callable[[Record], None]) -> range:
        """Give up the oldest records, as many as share a file, where each is of a kind that may be dropped.

        Returns their numbers; none when one of them may not, or the disk fails. ``look`` sees each that can be read, on
        another thread; what it saw means nothing where none are given up.
        """
