"""What a supervisor and a worker say to each other: JSON in frames, over a pair of sockets that nobody else has.

Each frame is its length (4 bytes, big-endian) and a JSON object. A request has an ``ask`` and an ``id``, its answer
that ``id`` with an ``answer`` or an ``error``; anything else is a note. The end of the connection is the end of the
other one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from spanbridge.core.errors import SpanbridgeError

_LENGTH = 4
_log = logging.getLogger("spanbridge.channel")

Message = dict[str, Any]
Answering = Callable[[Message], Awaitable[Any]]
"""Takes a request, returns its answer. What it raises is told to who asked."""


class ChannelError(SpanbridgeError):
    """The other side does not answer, or could not do what it was asked. The message says which."""

    reason = "worker"


class ChannelClosed(ChannelError):  # noqa: N818 - a state rather than a fault
    """The other side is gone."""


def frame(message: Message) -> bytes:
    """A message as bytes."""
    body = json.dumps(message, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return len(body).to_bytes(_LENGTH, "big") + body


def receive(connection: socket.socket) -> Message:
    """The next message, before there is an event loop. Blocks.

    :raises ChannelError: there is none.
    """
    return _parsed(_exactly(connection, int.from_bytes(_exactly(connection, _LENGTH), "big")))


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        if not more:
            raise ChannelClosed("the supervisor is gone")
        found += more
    return found


def _parsed(body: bytes) -> Message:
    message = json.loads(body)
    assert isinstance(message, dict)
    return message


class Channel:
    """One end, on the event loop. ``gone`` is set once the other side is."""

    def __init__(self, answering: Answering, noted: Callable[[Message], None]) -> None:
        """``answering`` is called with requests, ``noted`` with notes."""
        self._answering = answering
        self._noted = noted
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.gone = asyncio.Event()

    async def open(self, connection: socket.socket) -> None:
        """Begin to read from a connected socket."""
        reader, self._writer = await asyncio.open_unix_connection(sock=connection)
        self._begin(self._read(reader))

    async def close(self) -> None:
        """Send what is to be sent, and close. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end()

    def note(self, message: Message) -> None:
        """Say something that takes no answer. Never raises: whether the other side is there shows in ``gone``."""
        if self._writer is not None and not self.gone.is_set():
            self._writer.write(frame(message))

    async def ask(self, what: str, timeout: float, **more: Any) -> Any:
        """Ask for something, and wait ``timeout`` seconds for the answer.

        :raises ChannelClosed: the other side is gone.
        :raises ChannelError: there is no answer in time, or the other side could not do it.
        """
        if self._writer is None or self.gone.is_set():
            raise ChannelClosed("it is gone")
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(frame({"ask": what, "id": number, **more}))
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise ChannelError(f"no answer within {timeout:g} s") from None
        finally:
            self._waiting.pop(number, None)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
                self._take(_parsed(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError, ValueError):
            return
        except Exception as fault:  # noqa: BLE001 - who waits for the other side's end would wait for ever
            _log.error("what was said could not be taken, %s: %s; the channel is closed", type(fault).__name__, fault)
        finally:  # nobody reads any more, and the other side is to know it
            self._end()
            if self._writer is not None:
                self._writer.close()

    def _take(self, message: Message) -> None:
        if "ask" in message:
            self._begin(self._answer(message))
        elif "id" in message:
            self._answered(message)
        else:
            self._noted(message)

    def _answered(self, message: Message) -> None:
        waiting = self._waiting.get(message["id"])
        if waiting is None or waiting.done():
            return
        if "error" in message:
            waiting.set_exception(ChannelError(str(message["error"]), reason=message.get("reason")))
        else:
            waiting.set_result(message.get("answer"))

    async def _answer(self, request: Message) -> None:
        reply: Message = {"id": request["id"]}
        try:
            reply["answer"] = await self._answering(request)
        except SpanbridgeError as error:
            reply |= {"error": str(error), "reason": error.reason}
        except Exception as fault:  # noqa: BLE001 - who asked has to hear something
            reply["error"] = f"internal error: {type(fault).__name__}: {fault}"
        self.note(reply)

    def _begin(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self) -> None:
        self.gone.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ChannelClosed("it is gone"))
