"""A thread on which a spool's files are read and written: one job at a time, in order."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from spanbridge.core.errors import bare
from spanbridge.spool.errors import SpoolFault

T = TypeVar("T")
Outcome = tuple[Callable[..., None], tuple[Any, ...]]
"""What is to be called on the loop once a job is done, and with what."""


class SpoolThread:
    """Results come back to the loop at once. ``shown`` is called after jobs, on the thread, before their results are
    handed back; ``failed`` is told on the loop that handing one back went wrong."""

    def __init__(self, shown: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._shown = shown
        self._failed = failed
        self._jobs: SimpleQueue[Callable[[], Outcome] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was asked for."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def put(self, job: Callable[[], Outcome]) -> None:
        """Do this; it may not raise."""
        self._jobs.put(job)

    def order(self, call: Callable[[], object]) -> None:
        """Do this; nobody waits for it, and what goes wrong is not told."""

        def job() -> Outcome:
            tried(call)
            return _nothing, ()

        self._jobs.put(job)

    async def ask(self, call: Callable[[], T]) -> T:
        """What a call on the thread returns.

        :raises SpoolFault: it did.
        """
        answer: asyncio.Future[T] = self._loop.create_future()

        def job() -> Outcome:
            return _resolve, (answer, *tried(call))

        self._jobs.put(job)
        return await answer

    def _work(self) -> None:
        """Do jobs until there are none and :meth:`stop` asked; hand back the results of those that waited together."""
        while True:
            results: list[Outcome] = []
            job = self._jobs.get()
            while job is not None:
                results.append(job())
                if self._jobs.empty():
                    break
                job = self._jobs.get()
            self._shown()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._hand_back, results)
            if job is None:
                return

    def _hand_back(self, results: Sequence[Outcome]) -> None:
        for call, arguments in results:
            try:
                call(*arguments)
            except Exception as fault:  # noqa: BLE001 - one result must not stop those behind it
                self._failed(f"{type(fault).__name__}: {fault}")


def tried(call: Callable[[], T]) -> tuple[T | None, SpoolFault | None]:
    """What a call returns, or why it failed. A fault of ours must not end the thread that others wait for."""
    try:
        return call(), None
    except SpoolFault as error:
        return None, bare(error)
    except Exception as fault:  # noqa: BLE001
        return None, SpoolFault(f"{type(fault).__name__}: {fault}", reason="internal")


def _resolve(answer: asyncio.Future[T], value: T, error: SpoolFault | None) -> None:
    if answer.done():  # who asked was cancelled
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)


def _nothing() -> None:
    """Nobody waits for this."""
