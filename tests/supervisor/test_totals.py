"""Several workers on one page, and one verdict out of theirs."""

from __future__ import annotations

from typing import Any

from spanbridge.core.health import Reason
from spanbridge.supervisor.health import WorkerHealth, workers_ready, workers_stuck
from spanbridge.supervisor.slot import SlotState, SlotStatus
from spanbridge.supervisor.totals import added, last_errors, totals


def page(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "uplink": {"received": 5, "oldest_unacknowledged_s": 1.5, "paused": False, "sent_per_s": 0.1},
        "routes": [
            {"source": "m", "filter": "a/+", "name": "a", "received": 5, "reasons": {"expired": 1}, "last_s": 3.0}
        ],
        "batches": {"stored": 10, "stored_per_s": 1.0, "messages_per_request": 4.0, "request_ms": 10.0},
        "mqtt": [{"name": "m", "link": "up"}],
        "rocketmq": {"link": "up", "last_error": None},
        "last_errors": [{"age_s": 5.0, "message": "old"}],
    }
    return found | more


def test_counts_add_up_and_ages_are_the_worst() -> None:
    other = page(
        uplink={"received": 7, "oldest_unacknowledged_s": 9.0, "paused": True, "sent_per_s": 0.2},
        routes=[
            {"source": "m", "filter": "a/+", "name": "a", "received": 7, "reasons": {"loop": 2}, "last_s": None},
            {"source": "m", "filter": "b", "name": "b", "received": 1, "reasons": {}, "last_s": 1.0},
        ],
        batches={"stored": 30, "stored_per_s": 3.0, "messages_per_request": 8.0, "request_ms": None},
        rocketmq={"link": "down", "last_error": "refused"},
        last_errors=[{"age_s": 1.0, "message": "new"}],
    )
    found = totals({1: page(), 2: other})
    assert found["uplink"] == {"received": 12, "oldest_unacknowledged_s": 9.0, "paused": True, "sent_per_s": 0.3}
    first, second = found["routes"]
    assert (first["received"], first["reasons"], first["last_s"]) == (12, {"expired": 1, "loop": 2}, 3.0)
    assert second["received"] == 1
    assert found["batches"] == {"stored": 40, "stored_per_s": 4.0, "messages_per_request": 7.0, "request_ms": 10.0}
    assert [(row["worker"], row["name"]) for row in found["mqtt"]] == [(1, "m"), (2, "m")]
    assert found["rocketmq"] == {"link": "down", "last_error": "refused"}
    assert [(row["worker"], row["message"]) for row in last_errors({1: page(), 2: other})] == [(2, "new"), (1, "old")]


def test_what_only_some_have() -> None:
    spool = {"messages": 3, "hours_left": None, "straight": True, "oldest_s": 2.0}
    found = totals({1: page(lag={"groups": 1}), 2: page(spool=spool)})
    assert (found["lag"], found["spool"]) == ({"groups": 1}, spool)
    assert totals({}) == {}


def test_the_latest_error_is_shown_with_its_age() -> None:
    rows = [{"last_error": "old", "last_error_age_s": 9.0}, {"last_error": "new", "last_error_age_s": 2.0}]
    assert added([*rows, {"last_error": None, "last_error_age_s": None}]) == rows[1]


def slot(number: int, state: SlotState = SlotState.RUNNING, *, error: str | None = None) -> SlotStatus:
    return SlotStatus(number, state, 2.0, 100 + number, 0, error)


def codes(*slots: SlotStatus, said: dict[int, WorkerHealth], draining: bool = False) -> list[tuple[str, str]]:
    verdict = workers_ready(slots, said, draining=draining)
    return [(reason.code, reason.message) for reason in verdict.reasons]


FINE = WorkerHealth()


def test_ready_when_all_are() -> None:
    assert codes(slot(1), slot(2), said={1: FINE, 2: FINE}) == []
    assert codes(slot(1), slot(2), said={1: FINE}) == [("worker_starting", "worker 2 is starting")]
    away = WorkerHealth((Reason("source_down", "MQTT connection 'm' has been down"),))
    assert codes(slot(1), said={1: away}) == [("source_down", "worker 1: MQTT connection 'm' has been down")]
    dead = slot(2, SlotState.WAITING, error="was killed by SIGKILL")
    assert codes(slot(1), dead, said={1: FINE}) == [
        ("worker_down", "worker 2 has been down for 2.0 s: it was killed by SIGKILL")
    ]
    hung = WorkerHealth(silent_s=4.0)
    assert codes(slot(1), said={1: hung}) == [("worker_silent", "worker 1 has not answered for 4.0 s")]
    assert [code for code, _ in codes(slot(1), said={1: away}, draining=True)] == ["draining"]


def test_stuck_when_one_is_and_a_restart_of_it_alone_is_nobodys_work() -> None:
    assert workers_stuck([slot(1), slot(2, SlotState.WAITING)], {1: FINE}) is None
    assert workers_stuck([slot(1)], {1: WorkerHealth(silent_s=29.0)}) is None
    assert workers_stuck([slot(1)], {1: WorkerHealth(silent_s=31.0)}) == "worker 1 has not answered for 31 s"
    stuck = {1: FINE, 2: WorkerHealth(stuck="nobody works on it")}
    assert workers_stuck([slot(1), slot(2)], stuck) == "worker 2: nobody works on it"
