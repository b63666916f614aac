"""When workers are started again, stopped and changed: with processes that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from spanbridge.supervisor.channel import ChannelClosed, ChannelError, Message
from spanbridge.supervisor.events import WorkerDied
from spanbridge.supervisor.process import Noted, describe
from spanbridge.supervisor.slot import SlotState
from spanbridge.supervisor.supervisor import Changed, Supervisor
from tests.fakes import FakeReporter

pytestmark = pytest.mark.anyio


class FakeWorker:
    """Does as it is told; ``answers`` are by request, exceptions are raised."""

    def __init__(self, number: int, start: Message, noted: Noted) -> None:
        self.number = number
        self.start = start
        self.noted = noted
        self.notes: list[Message] = []
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {
            "prepare": {},
            "commit": {"changes": "routes", "needed": ["name"]},
            "settled": True,
        }
        self.ends_when_told = True
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        return 1000 + self.number

    async def ask(self, what: str, timeout: float, **more: Any) -> Any:
        self.asked.append(what)
        answer = self.answers[what]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def note(self, message: Message) -> None:
        self.notes.append(message)
        if self.ends_when_told and "stop" in message:
            self.end(0)
        if "end" in message:
            self.end(1)

    def kill(self) -> None:
        self.end(-9)

    def end(self, code: int) -> None:
        if not self.code.done():
            self.code.set_result(code)

    async def wait(self) -> int:
        return await self.code


class PatientClock:
    """Sleeps as short as can be, and keeps how long it was to be. ``hold`` lets none end."""

    def __init__(self) -> None:
        self.now = 0
        self.slept: list[float] = []
        self.hold = False

    def now_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.001 if not self.hold else 3600)


class Stage:
    """A supervisor of two fake workers that runs."""

    def __init__(self) -> None:
        self.reporter = FakeReporter()
        self.clock = PatientClock()
        self.made: list[FakeWorker] = []
        self.ended: list[int] = []
        self.fails: list[OSError] = []
        self.begun = 0
        self.starting: asyncio.Event | None = None
        """What a start waits for."""
        self.stop = asyncio.Event()
        self.at_once = asyncio.Event()
        self.supervisor = Supervisor(
            2,
            self._launch,
            {"text": "first"},
            reporter=self.reporter,
            clock=self.clock,
            noted=lambda *_: None,
            ended=self.ended.append,
        )

    async def _launch(self, number: int, start: Message, noted: Noted) -> FakeWorker:
        if self.fails:
            raise self.fails.pop()
        self.begun += 1
        if self.starting is not None:
            await self.starting.wait()
        self.made.append(FakeWorker(number, start, noted))
        return self.made[-1]

    def run(self) -> asyncio.Task[int]:
        return asyncio.create_task(
            self.supervisor.run(self.stop, self.at_once, cause=lambda: "SIGTERM", deadline=lambda: 30.0)
        )

    def texts(self) -> list[str]:
        return [event.text() for event in self.reporter.events]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.001)


def without_looks(worker: FakeWorker) -> list[str]:
    return [what for what in worker.asked if what != "settled"]


async def started() -> tuple[Stage, asyncio.Task[int]]:
    stage = Stage()
    running = stage.run()
    await until(lambda: len(stage.made) == 2)
    for worker in stage.made:
        worker.noted({"running": True})
    return stage, running


async def stopped(stage: Stage, running: Awaitable[int]) -> int:
    stage.stop.set()
    with anyio.fail_after(60):
        return await running


async def test_all_are_told_to_drain_and_the_end_is_in_order() -> None:
    stage, running = await started()
    assert [slot.status().state for slot in stage.supervisor.slots] == [SlotState.RUNNING] * 2
    assert await stopped(stage, running) == 0
    assert all({"stop": "SIGTERM"} in worker.notes for worker in stage.made)
    assert stage.texts()[-2:] == [
        "stopping (SIGTERM): 2 worker(s) drain, for up to 30 s",
        "stopped: all workers have ended",
    ]
    assert stage.supervisor.stopping
    assert sorted(stage.ended) == [1, 2]


async def test_one_that_dies_is_started_again_after_longer_and_longer_pauses() -> None:
    stage, running = await started()
    for deaths in range(1, 5):
        [worker for worker in stage.made if worker.number == 2][-1].end(-9)
        await until(lambda deaths=deaths: len(stage.made) == 2 + deaths)  # type: ignore[misc]
    status = stage.supervisor.slots[1].status()
    assert (status.restarts, status.last_error) == (4, "was killed by SIGKILL")
    told = [event for event in stage.reporter.events if isinstance(event, WorkerDied)]
    assert "worker 2 was killed by SIGKILL; it is started again in" in told[0].text()
    pauses = [event.retry_in for event in told]
    assert all(0.05 * 2**n <= pause <= 0.5 * 2**n for n, pause in enumerate(pauses))
    assert [worker.number for worker in stage.made].count(1) == 1, "the other one goes on"
    assert await stopped(stage, running) == 0


async def test_one_that_has_worked_for_long_comes_back_soon() -> None:
    stage, running = await started()
    for deaths in range(1, 6):
        stage.made[-1].noted({"running": True})
        stage.clock.now += int(60e9)
        [worker for worker in stage.made if worker.number == 2][-1].end(1)
        await until(lambda deaths=deaths: len(stage.made) == 2 + deaths)  # type: ignore[misc]
    told = [event for event in stage.reporter.events if isinstance(event, WorkerDied)]
    assert all(event.retry_in <= 0.5 for event in told)
    assert await stopped(stage, running) == 0


async def test_one_that_cannot_be_started_is_tried_again() -> None:
    stage = Stage()
    stage.fails = [OSError(11, "Resource temporarily unavailable")]
    running = stage.run()
    await until(lambda: len(stage.made) == 2)
    assert any("could not be started: resource temporarily unavailable" in text for text in stage.texts())
    assert await stopped(stage, running) == 0


async def test_a_configuration_that_cannot_be_used_ends_all_with_2() -> None:
    stage, running = await started()
    stage.made[1].end(2)
    with anyio.fail_after(60):
        assert await running == 2
    assert {"stop": "a worker is hopeless"} in stage.made[0].notes
    assert len(stage.made) == 2
    assert any("somebody has to mend its configuration; all workers are stopped" in text for text in stage.texts())


async def test_a_second_signal_ends_all_at_once() -> None:
    stage, running = await started()
    for worker in stage.made:
        worker.ends_when_told = False
    stage.stop.set()
    await until(lambda: stage.supervisor.stopping)
    stage.at_once.set()
    with anyio.fail_after(60):
        assert await running == 1
    assert all({"end": True} in worker.notes for worker in stage.made)


async def test_one_that_waits_to_be_started_again_is_not_when_all_stop() -> None:
    stage, running = await started()
    stage.clock.hold = True
    stage.made[1].end(1)
    await until(lambda: stage.supervisor.slots[1].status().state is SlotState.WAITING)
    assert await stopped(stage, running) == 0
    assert len(stage.made) == 2


async def test_one_that_does_not_end_in_order_makes_the_end_a_failure() -> None:
    stage, running = await started()
    stage.made[0].ends_when_told = False
    stage.stop.set()
    await until(lambda: {"stop": "SIGTERM"} in stage.made[0].notes)
    stage.made[0].end(1)
    with anyio.fail_after(60):
        assert await running == 1
    assert "stopped: all workers have ended, 1 of them not in order" in stage.texts()


async def test_a_change_is_for_all() -> None:
    stage, running = await started()
    outcome = await stage.supervisor.change({"text": "second"})
    assert outcome == Changed(changes="routes", needed=("name",))
    assert all(without_looks(worker) == ["prepare", "commit"] for worker in stage.made)
    stage.made[1].end(1)
    await until(lambda: len(stage.made) == 3)
    assert stage.made[2].start == {"text": "second"}
    assert await stopped(stage, running) == 0


async def test_a_change_that_one_refuses_is_for_none() -> None:
    stage, running = await started()
    stage.made[1].answers["prepare"] = ChannelError("cannot read cert.pem")
    outcome = await stage.supervisor.change({"text": "second"})
    assert outcome.refusals == ("worker 2: cannot read cert.pem",)
    assert all("commit" not in worker.asked and {"drop": True} in worker.notes for worker in stage.made)
    assert stage.supervisor.start == {"text": "first"}
    assert await stopped(stage, running) == 0


async def test_one_that_is_gone_refuses_nothing_and_begins_with_the_change() -> None:
    stage, running = await started()
    stage.made[1].answers["prepare"] = stage.made[1].answers["commit"] = ChannelClosed("it is gone")
    outcome = await stage.supervisor.change({"text": "second"})
    assert outcome.refusals == ()
    await until(lambda: len(stage.made) == 3)
    assert (stage.made[2].number, stage.made[2].start) == (2, {"text": "second"})
    assert await stopped(stage, running) == 0


async def test_one_that_cannot_go_through_with_a_change_is_replaced() -> None:
    stage, running = await started()
    stage.made[0].answers["commit"] = ChannelError("internal error")
    await stage.supervisor.change({"text": "second"})
    await until(lambda: len(stage.made) == 3)
    assert (stage.made[2].number, stage.made[2].start) == (1, {"text": "second"})
    assert "worker 1 could not take the configuration over; it is killed" in " ".join(stage.texts())
    assert await stopped(stage, running) == 0


async def test_subscriptions_of_others_are_given_up_once_all_have_theirs() -> None:
    stage, running = await started()
    stage.made[0].answers["settled"] = False
    await until(lambda: stage.made[0].asked.count("settled") > 2)
    assert not any({"release": True} in worker.notes for worker in stage.made)
    stage.made[0].answers["settled"] = True
    await until(lambda: all({"release": True} in worker.notes for worker in stage.made))
    asked = len(stage.made[0].asked)
    await anyio.sleep(0.05)
    assert len(stage.made[0].asked) <= asked + 1, "once is enough"
    stage.made[1].end(1)
    await until(lambda: len(stage.made) == 3)
    stage.made[2].noted({"running": True})
    await until(lambda: stage.made[2].notes == [{"release": True}])
    assert await stopped(stage, running) == 0


def test_exit_codes_in_words() -> None:
    assert describe(1) == "ended with exit code 1"
    assert describe(-9) == "was killed by SIGKILL"
    assert describe(-64) in ("was killed by SIGRTMAX", "was killed by signal 64")


async def test_one_that_was_being_started_during_a_change_does_not_stay_with_the_former_configuration() -> None:
    stage, running = await started()
    stage.starting = asyncio.Event()
    stage.made[1].end(1)
    await until(lambda: stage.begun == 3)
    outcome = await stage.supervisor.change({"text": "second"})
    assert outcome.refusals == ()
    stage.starting.set()
    await until(lambda: len(stage.made) == 4)
    assert [worker.start for worker in stage.made[2:]] == [{"text": "first"}, {"text": "second"}]
    assert stage.made[2].code.done()
    assert await stopped(stage, running) == 0
