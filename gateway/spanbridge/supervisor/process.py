"""A worker's process: Python anew, with a socket to its supervisor."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from spanbridge.supervisor.channel import Channel, Message


class WorkerProcess(Protocol):
    """A worker that was started."""

    @property
    def pid(self) -> int:
        """Its process."""

    async def ask(self, what: str, timeout: float, **more: Any) -> Any:
        """See :meth:`Channel.ask`."""

    def note(self, message: Message) -> None:
        """See :meth:`Channel.note`."""

    def kill(self) -> None:
        """End it by force. Synchronous; never raises."""

    async def wait(self) -> int:
        """Wait for its end; the exit code, or the negative number of the signal that ended it."""


Noted = Callable[[Message], None]
Launch = Callable[[int, Message, Noted], Awaitable[WorkerProcess]]
"""Starts a worker by its number, the message that it begins with, and what takes its notes.

It raises OSError where there can be no process.
"""


class RealWorker:
    """A worker as a process of this machine. Its own session keeps a terminal's Ctrl-C from it: we tell it to stop."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self._process = process
        self._channel = channel

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def ask(self, what: str, timeout: float, **more: Any) -> Any:
        """See :meth:`Channel.ask`."""
        return await self._channel.ask(what, timeout, **more)

    def note(self, message: Message) -> None:
        """See :meth:`Channel.note`."""
        self._channel.note(message)

    def kill(self) -> None:
        """End it by force."""
        try:
            self._process.send_signal(signal.SIGKILL)
        except ProcessLookupError:
            return

    async def wait(self) -> int:
        """Wait for its end, and for the last that it said."""
        code = await self._process.wait()
        await self._channel.gone.wait()
        await self._channel.close()
        return code


async def launch(module: str, number: int, start: Message, noted: Noted) -> RealWorker:
    """Run ``python -m module NUMBER DESCRIPTOR`` and give it ``start`` to begin with.

    :raises OSError: there can be no process.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        # -P: the directory that the gateway was started in is no place to import from.
        command = [sys.executable, "-P", "-m", module, str(number), str(theirs.fileno())]
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )
        except BaseException:
            ours.close()
            raise
    channel = Channel(_nothing, noted)
    await channel.open(ours)
    channel.note(start)
    return RealWorker(process, channel)


async def _nothing(_: Message) -> None:
    """A worker asks its supervisor nothing."""


def describe(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
