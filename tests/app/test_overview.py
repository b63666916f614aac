"""What the admin server shows of several workers."""

from __future__ import annotations

import base64
from typing import Any, cast

import pytest

from spanbridge.admin.pages import Answer, LaterAnswer, Pages, Request
from spanbridge.app.overview import Overview
from spanbridge.supervisor.channel import ChannelError
from spanbridge.supervisor.slot import SlotState, SlotStatus, WorkerSlot
from spanbridge.supervisor.supervisor import Supervisor
from spanbridge.telemetry import Telemetry, TelemetrySettings
from spanbridge.telemetry.metrics.merge import as_wire
from spanbridge.telemetry.metrics.points import Metric, NumberPoint
from tests.uplink.fakes import FakeClock

pytestmark = pytest.mark.anyio


class FakeSlot:
    """A worker's place whose answers are given."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: object | None = object()
        self.since_s = 1.0
        self.answers: dict[str, Any] = {
            "health": {"reasons": [], "stuck": None},
            "status": {
                "ready": True,
                "uplink": {"received": number},
                "routes": [],
                "batches": {"stored": 0, "stored_per_s": 0.0, "messages_per_request": None, "request_ms": None},
                "mqtt": [],
                "rocketmq": {"link": "up"},
                "last_errors": [],
            },
            "metrics": as_wire([Metric("sent", "", "", "counter", [NumberPoint({}, 1, 2, number * 10)])]),
            "profile": base64.b64encode(b"profile").decode(),
        }

    async def ask(self, what: str, timeout: float, **more: Any) -> Any:
        answer = self.answers[what]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def status(self) -> SlotStatus:
        return SlotStatus(self.number, SlotState.RUNNING, self.since_s, 100, 0, None)


class FakeSupervisor:
    def __init__(self) -> None:
        self.slots = [FakeSlot(1), FakeSlot(2)]
        self.stopping = False


def overview() -> tuple[Overview, FakeSupervisor, FakeClock]:
    clock, supervisor = FakeClock(), FakeSupervisor()
    telemetry = Telemetry(TelemetrySettings(), environ={})
    made = Overview("gw", telemetry, clock)
    made.watch(cast("Supervisor", supervisor), config=lambda: {"file": "f"}, services=dict)
    return made, supervisor, clock


async def page(made: Overview, path: str) -> Answer:
    pages = Pages(made.readiness, made.page, made.metrics, made.liveness, fresh=made.fresh)
    answer = pages.answer(Request(method="GET", path=path))
    assert isinstance(answer, LaterAnswer), "workers are asked first"
    return await answer.make()


async def test_pages_ask_the_workers_and_add_up() -> None:
    made, _, _ = overview()
    assert (await page(made, "/readyz")).status == 200
    status = (await page(made, "/status")).body.decode()
    assert '"received": 3' in status
    assert made.page()["workers"][1]["status"]["uplink"] == {"received": 2}
    metrics = (await page(made, "/metrics")).body.decode()
    assert "sent_total{" in metrics
    assert "} 30" in metrics
    assert 'spanbridge_worker_up{worker="2"' in metrics


async def test_one_that_does_not_answer_is_told_of_and_what_it_counted_stays() -> None:
    made, supervisor, clock = overview()
    await page(made, "/metrics")
    await page(made, "/livez")
    supervisor.slots[1].answers = dict.fromkeys(("health", "status", "metrics"), ChannelError("no answer within 2 s"))
    clock.now += int(10e9)
    answer = await page(made, "/readyz")
    assert (answer.status, b"worker_silent" in answer.body) == (503, True)
    assert [row["ready"] for row in made.page()["workers"]] == [True, False], "whatever it said last"
    assert (await page(made, "/livez")).status == 200, "not yet for so long that a restart is the only help"
    assert "} 30" in (await page(made, "/metrics")).body.decode()
    clock.now += int(30e9)
    assert (await page(made, "/livez")).status == 503
    made.ended(2)
    assert "} 30" in (await page(made, "/metrics")).body.decode(), "a sum never gets smaller"


async def test_one_that_runs_and_has_never_answered_is_stuck_as_well() -> None:
    made, supervisor, _ = overview()
    supervisor.slots[1].answers = dict.fromkeys(("health", "status", "metrics"), ChannelError("no answer within 2 s"))
    assert (await page(made, "/livez")).status == 200
    supervisor.slots[1].since_s = 31.0
    answer = await page(made, "/livez")
    assert (answer.status, b"worker 2 has not answered for 31 s" in answer.body) == (503, True)


async def test_a_profile_is_of_one_worker() -> None:
    made, supervisor, _ = overview()
    later = made.profile("seconds=1&worker=2")
    assert isinstance(later, LaterAnswer)
    assert (await later.make()).body == b"profile"
    supervisor.slots[0].answers["profile"] = ChannelError("one is made now", reason="profiling_busy")
    later = made.profile("seconds=1")
    assert isinstance(later, LaterAnswer)
    assert (await later.make()).status == 409
    refused = made.profile("worker=7")
    assert isinstance(refused, Answer)
    assert refused.status == 400


def test_a_slot_is_what_is_asked() -> None:
    """The fake above has what the real one has."""
    assert {"ask", "status"} <= set(dir(WorkerSlot))
