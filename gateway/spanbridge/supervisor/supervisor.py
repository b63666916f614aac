"""All workers of a gateway: started together, changed together, stopped together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from spanbridge.core.retry import Backoff
from spanbridge.ports import Clock, Reporter
from spanbridge.supervisor.channel import ChannelClosed, ChannelError, Message
from spanbridge.supervisor.events import WorkersStopped, WorkersStopping
from spanbridge.supervisor.process import Launch
from spanbridge.supervisor.slot import HOPELESS, SlotState, WorkerSlot

_BACKOFF: Final = (0.5, 30.0)
"""Ceilings of the first and of every pause before a worker is started again, in seconds."""
_SPARE: Final = 15.0
"""Seconds beyond the drain in which a worker closes its connections and sends the last of its telemetry."""
_AT_ONCE: Final = 5.0
"""Seconds that a worker has to end at once."""
_CHANGE: Final = 60.0
"""Seconds that preparing or taking over a configuration may take."""
_LOOK: Final = 1.0
"""Seconds between two looks whether all workers have their subscriptions."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of configuration came to: in force, or refused for these causes.

    ``changes`` says what has changed, ``needed`` what takes a restart.
    """

    refusals: tuple[str, ...] = ()
    changes: str = ""
    needed: tuple[str, ...] = ()


class Supervisor:
    """Runs workers until it is asked to stop. ``start`` is the message that each begins with."""

    def __init__(
        self,
        count: int,
        launch: Launch,
        start: Message,
        *,
        reporter: Reporter,
        clock: Clock,
        noted: Callable[[int, Message], None],
        ended: Callable[[int], None],
    ) -> None:
        """``noted`` is called with each note of a worker, ``ended`` when a process of it is gone."""
        self.start = start
        self.stopping = False
        self._reporter = reporter
        self._clock = clock
        self._ended = ended
        self._settled = False
        self.slots = [
            WorkerSlot(
                number,
                launch,
                lambda: self.start,
                reporter=reporter,
                clock=clock,
                noted=noted,
                ended=self._gone,
                backoff=Backoff(*_BACKOFF),
            )
            for number in range(1, count + 1)
        ]

    async def run(
        self, stop: asyncio.Event, at_once: asyncio.Event, *, cause: Callable[[], str], deadline: Callable[[], float]
    ) -> int:
        """Keep all workers until ``stop`` is set or one is hopeless, then have them drain; the exit code of it all.

        ``at_once`` ends them without. ``cause`` tells who asked to stop, ``deadline`` how long a drain may take, in
        seconds.
        """
        keeping = [asyncio.create_task(slot.keep(), name=f"worker {slot.number}") for slot in self.slots]
        asked = asyncio.create_task(stop.wait(), name="stop")
        releasing = asyncio.create_task(self._release_forever(), name="release")
        try:
            await asyncio.wait((asked, *keeping), return_when=asyncio.FIRST_COMPLETED)
            await self._stop(keeping, at_once, cause() if stop.is_set() else "a worker is hopeless", deadline())
        finally:
            for task in (asked, releasing, *keeping):
                task.cancel()
            await asyncio.gather(asked, releasing, *keeping, return_exceptions=True)
        codes = [task.result() for task in keeping if not task.cancelled()]
        self._reporter.report(WorkersStopped(failed=sum(slot.failed for slot in self.slots)))
        return HOPELESS if HOPELESS in codes else int(any(slot.failed for slot in self.slots))

    async def _stop(
        self, keeping: Sequence[asyncio.Task[int]], at_once: asyncio.Event, cause: str, deadline: float
    ) -> None:
        self.stopping = True
        left = sum(not task.done() for task in keeping)
        self._reporter.report(WorkersStopping(cause=cause, workers=left, deadline=deadline))
        for slot in self.slots:
            slot.stop(cause)
        ending = asyncio.create_task(at_once.wait(), name="end at once")
        drained = asyncio.ensure_future(asyncio.gather(*keeping, return_exceptions=True))
        await asyncio.wait((ending, drained), timeout=deadline + _SPARE, return_when=asyncio.FIRST_COMPLETED)
        if at_once.is_set():
            for slot in self.slots:
                slot.note({"end": True})
            await asyncio.wait((drained,), timeout=_AT_ONCE)
        while not drained.done():
            for slot in self.slots:
                slot.kill("has not ended in time")
            await asyncio.wait((drained,), timeout=_AT_ONCE)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)

    # -- a change of the configuration ------------------------------------------------------------------------------

    async def change(self, start: Message) -> Changed:
        """Have all workers take over what ``start`` has, or none: first all say whether they can."""
        answers = await self._ask_all("prepare", **start)
        refusals = [f"worker {number}: {answer}" for number, answer in answers.items() if _refused(answer)]
        if refusals or self.stopping:
            for slot in self.slots:
                slot.note({"drop": True})
            return Changed(tuple(refusals) or ("the gateway is stopping",))
        self.start = start
        prepared = {slot.number: slot.process for slot in self.slots if isinstance(answers[slot.number], dict)}
        answers = await self._ask_all("commit")
        self._settled = False
        for slot in self.slots:
            if slot.process is not None and (
                slot.process is not prepared.get(slot.number) or _refused(answers[slot.number])
            ):  # it began with the former one meanwhile, or could not go through with it: the next one has this one
                slot.kill("could not take the configuration over")
        told = [answer for answer in answers.values() if isinstance(answer, dict)]
        return Changed(
            changes=", ".join(dict.fromkeys(one["changes"] for one in told)) or "all workers begin with it",
            needed=tuple(dict.fromkeys(setting for one in told for setting in one["needed"])),
        )

    async def _ask_all(self, what: str, **more: Any) -> dict[int, Any]:
        """Each worker's answer by its number, or the error that came instead."""
        asked = (slot.ask(what, _CHANGE, **more) for slot in self.slots)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return {slot.number: answer for slot, answer in zip(self.slots, answers, strict=True)}

    # -- subscriptions that move from one worker to another ---------------------------------------------------------

    def _gone(self, number: int) -> None:
        self._settled = False
        self._ended(number)

    async def _release_forever(self) -> None:
        """Once all workers have their subscriptions, have each give up those that another one has now.

        Earlier, messages would come to nobody: a session that a worker has from before may hold them.
        """
        while True:
            await self._clock.sleep(_LOOK)
            if self._settled or any(slot.status().state is not SlotState.RUNNING for slot in self.slots):
                continue
            answers = await self._ask_all("settled")
            if all(answer is True for answer in answers.values()):
                self._settled = True
                for slot in self.slots:
                    slot.note({"release": True})


def _refused(answer: object) -> bool:
    """Whether a worker that is there could not do what it was asked."""
    return isinstance(answer, ChannelError) and not isinstance(answer, ChannelClosed)
