"""A TCP proxy on loopback that misbehaves on demand: what lies between a client and its broker.

It runs in a thread of its own, so that synchronous and asynchronous tests alike can steer it while their client is
busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Any, Self

from spanbridge.devstack.ports import LOOPBACK
from spanbridge.devstack.tamper import Side, Tamper, Tampering

_CHUNK = 65536
_LAST_TURNS = 5
"""Turns of the loop from aborting a transport to closing its socket: two in CPython 3.11, and some to spare."""


class Mode(StrEnum):
    """What the proxy does with connections, the open ones and those to come."""

    PASS = "pass"  # noqa: S105 - not a password
    """Forward everything."""
    HANG = "hang"
    """Accept, read nothing, forward nothing: the peer's buffers fill up."""
    BLACKHOLE = "blackhole"
    """Accept and read everything, forward nothing."""
    REFUSE = "refuse"
    """Do not listen; open connections are reset."""
    RESET = "reset"
    """Accept, then reset at once."""


@dataclass(slots=True, eq=False)
class _Link:
    """One client's connection and its counterpart."""

    accepted: socket.socket
    client: asyncio.StreamWriter | None = None
    upstream: asyncio.StreamWriter | None = None
    halved: bool = False
    """Its client was told the end of the stream: nothing more goes there."""
    doomed: bool = False
    """To be reset as soon as the streams on the accepted socket are made: nobody else may close it meanwhile."""

    def close(self) -> None:
        """Close both ends the friendly way, after what is on its way."""
        for writer in (self.client, self.upstream):
            if writer is not None:
                writer.close()
        if self.client is None:
            self.accepted.close()

    def reset(self) -> None:
        """Close both ends with RST, as a crash or a firewall does."""
        for writer in (self.client, self.upstream):
            if writer is not None:
                with contextlib.suppress(OSError):
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # socket(7)
                writer.transport.abort()
        self.doomed = True


class FaultProxy:
    """Forwards TCP connections to an upstream and fails on demand. Use it as a context manager.

    Args:
        host: the upstream's host, or ``host:port``.
        port: the upstream's port, when it is not in ``host``.

    Every method may be called from any thread and takes effect before it returns.
    """

    def __init__(self, host: str, port: int | None = None) -> None:
        if port is None:
            host, _, text = host.rpartition(":")
            port = int(text)
        self._upstream = (host, port)
        self._mode = Mode.PASS
        self._delay = 0.0
        self._rate = 0.0
        self._tampering: dict[Side, Tampering] = {"up": Tampering(), "down": Tampering()}
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # asyncio's server of CPython 3.11 leaks connections that it accepts while it is being closed.
        self._listener: socket.socket | None = None
        self.host = LOOPBACK
        self.port = 0
        self.accepted = 0
        """Connections accepted so far."""
        self.forwarded = {"up": 0, "down": 0}
        """Bytes forwarded so far, each way."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._changed: asyncio.Event = self._call(self._prepare)

    @property
    def endpoints(self) -> str:
        """``host:port`` to connect to instead of the upstream."""
        return f"{self.host}:{self.port}"

    @property
    def mode(self) -> Mode:
        """What happens to connections now."""
        return self._mode

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._links)

    def resume(self) -> None:
        """Forward again, fast and unchanged; connections that were held go on, with nothing lost."""
        self._delay = self._rate = 0.0
        for side in self._tampering.values():
            side.share = 0.0
        self._set(Mode.PASS)

    def hang(self) -> None:
        """Stop reading and forwarding; new connections are accepted and never answered."""
        self._set(Mode.HANG)

    def blackhole(self) -> None:
        """Read and throw away; nothing is answered."""
        self._set(Mode.BLACKHOLE)

    def refuse(self) -> None:
        """Stop listening and reset what is open: connecting gives ECONNREFUSED."""
        self._set(Mode.REFUSE)

    def reset(self) -> None:
        """Reset what is open, and every new connection, until :meth:`resume`."""
        self._set(Mode.RESET)

    def drop(self) -> None:
        """Reset what is open now; new connections are treated as before."""
        self._call(self._reset_links)

    def delay(self, seconds: float) -> None:
        """Hold back every piece of data, both ways, for this long (0 ends it)."""
        self._delay = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """Forward no faster than this, each way of each connection (0 ends it)."""
        self._rate = bytes_per_second

    def half_close(self) -> None:
        """Say the end of the stream to the clients that are connected now, and go on reading what they send."""
        self._call(self._half_close)

    def corrupt_share(self, share: float, rng: random.Random, side: Side = "down") -> None:
        """Invert one byte in this share of the pieces of data of a direction, until :meth:`resume`."""
        self._tampering[side].rng = rng
        self._tampering[side].share = share

    def truncate(self, side: Side = "down", after: int = 0) -> None:
        """Forward ``after`` more bytes in this direction, then close the connection (once)."""
        self._call(self._add_tamper, side, Tamper(after=after, change=lambda _rest: None))

    def corrupt(self, side: Side = "down", after: int = 0, flip: int = 0xFF) -> None:
        """Forward ``after`` more bytes in this direction, then invert the bits ``flip`` of the next byte (once)."""

        def change(rest: bytes) -> bytes:
            return bytes([rest[0] ^ flip]) + rest[1:]

        self._call(self._add_tamper, side, Tamper(after=after, change=change))

    def close(self) -> None:
        """Close everything. Idempotent."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What follows runs on the proxy's own loop.

    def _call(self, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
        async def run() -> Any:
            return await function(*args)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _prepare(self) -> asyncio.Event:
        self._listen()
        return asyncio.Event()

    def _listen(self) -> None:
        self._listener = socket.create_server((self.host, self.port), backlog=100)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _set(self, mode: Mode) -> None:
        self._call(self._change_mode, mode)

    async def _change_mode(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.REFUSE:
            self._stop_listening()
        if mode in (Mode.REFUSE, Mode.RESET):
            await self._reset_links()
        if mode is not Mode.REFUSE and self._listener is None:
            self._listen()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _reset_links(self) -> None:
        for link in tuple(self._links):
            link.reset()

    async def _half_close(self) -> None:
        for link in tuple(self._links):
            if link.client is not None and not link.client.is_closing():
                link.client.write_eof()
                link.halved = True

    async def _add_tamper(self, side: Side, tamper: Tamper) -> None:
        self._tampering[side].once.append(tamper)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        self.accepted += 1
        link = _Link(connection)
        link.doomed = self._mode is Mode.RESET
        self._links.add(link)
        task = self._loop.create_task(self._carry(link))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, link))

    def _ended(self, link: _Link, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._links.discard(link)
        link.close()

    async def _carry(self, link: _Link) -> None:
        reader, client = await asyncio.open_connection(sock=link.accepted)
        link.client = client
        if link.doomed:
            link.reset()
            return
        await self._open_gate()
        try:
            upstream, link.upstream = await asyncio.open_connection(*self._upstream)
        except OSError:
            link.reset()  # as the upstream would have answered, had the client gone there itself
            return
        await asyncio.gather(
            self._pump("up", reader, link.upstream, link),
            self._pump("down", upstream, client, link),
        )

    async def _pump(self, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while True:
                await self._open_gate()
                chunk = await reader.read(_CHUNK)
                await self._open_gate()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if not chunk:
                    if writer.can_write_eof() and not writer.is_closing():
                        writer.write_eof()
                    return
                if self._mode is Mode.BLACKHOLE or (link.halved and side == "down"):
                    continue
                if self._rate:
                    await asyncio.sleep(len(chunk) / self._rate)
                chunk, whole = self._tampering[side].apply(chunk)
                writer.write(chunk)
                await writer.drain()
                self.forwarded[side] += len(chunk)
                if not whole:
                    link.close()
                    return
        link.close()

    async def _open_gate(self) -> None:
        while self._mode is Mode.HANG:
            await self._changed.wait()

    async def _close(self) -> None:
        self._stop_listening()
        await self._reset_links()
        while any(link.client is None for link in self._links):  # noqa: ASYNC110 - for a turn or two of the loop
            await asyncio.sleep(0)
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)
