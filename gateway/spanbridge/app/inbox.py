"""What commands ask of the spool of a running gateway: messages and dead letters that are to be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spanbridge.app.events import InboxDone, InboxFailed
from spanbridge.app.services import Periodic
from spanbridge.core.errors import SpanbridgeError
from spanbridge.core.spooled import Spooled
from spanbridge.ports import Clock, Reporter
from spanbridge.spool.inbox import Errand, InboxRefused, SpoolInbox
from spanbridge.uplink.dead_letters import DeadLetters
from spanbridge.uplink.spill import Spill

_PERIOD = 2.0
"""Seconds between two looks."""
_CHUNK = 1024
_CHUNK_BYTES = 1 << 20


class InboxService(Periodic):
    """Does what is in the inbox, oldest first. What fails stays there, and is tried again."""

    name = "spool.inbox"

    def __init__(
        self, inbox: SpoolInbox, spill: Spill, dead_letters: DeadLetters, reporter: Reporter, clock: Clock
    ) -> None:
        super().__init__()
        self._inbox = inbox
        self._spill = spill
        self._dead_letters = dead_letters
        self._reporter = reporter
        self._clock = clock
        self._reached: dict[str, int] = {}
        """How far files were read that are not done, in bytes: what is in the spool is not put there twice."""
        self._done = 0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                for name in await asyncio.to_thread(self._inbox.waiting):
                    await self._take(name)
            except SpanbridgeError as error:
                self._reporter.report(InboxFailed(cause=str(error)))
            except Exception as fault:  # noqa: BLE001 - what comes later is to be looked at all the same
                self._reporter.report(InboxFailed(cause=f"{type(fault).__name__}: {fault}"))
            await self._clock.sleep(_PERIOD)

    def status(self) -> dict[str, Any]:
        """How many files were done."""
        return {"interval_s": _PERIOD, "done": self._done}

    async def _take(self, name: str) -> None:
        try:
            errand = await asyncio.to_thread(self._inbox.errand, name)
            text = await (self._put(name) if errand is None else self._run_errand(errand))
        except InboxRefused as error:
            aside = await asyncio.to_thread(self._inbox.refuse, name)
            self._reporter.report(InboxFailed(cause=f"{name} cannot be understood, and is called {aside} now: {error}"))
            return
        self._reached.pop(name, None)
        await asyncio.to_thread(self._inbox.finish, name)
        self._done += 1
        self._reporter.report(InboxDone(what=text))

    async def _put(self, name: str) -> str:
        count = 0
        while True:
            offset = self._reached.get(name, 0)
            found, end = await asyncio.to_thread(self._inbox.messages, name, offset, _CHUNK, _CHUNK_BYTES)
            if not found:
                return f"{count} message(s) of {name} are in the spool, and go to RocketMQ"
            await self._spill.put(found)
            count, self._reached[name] = count + len(found), end

    async def _run_errand(self, errand: Errand) -> str:
        if errand.do == "purge":
            return f"{await self._dead_letters.remove_all()} dead letter(s) were removed"
        given, stayed = await self._dead_letters.give_back(errand.reasons, self._again)
        return f"{given} dead letter(s) are in the spool, and go to RocketMQ; {stayed} stay"

    async def _again(self, letters: Sequence[Spooled]) -> None:
        """Dead letters as messages: their expiry is left out, as it is of others that are sent again by hand."""
        await self._spill.put(
            [replace(one, publish=replace(one.publish, expiry=None), reason="", error="") for one in letters]
        )
