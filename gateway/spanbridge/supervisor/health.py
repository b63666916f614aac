"""Readiness and liveness of a gateway out of those of its workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from spanbridge.core.health import Readiness, Reason
from spanbridge.supervisor.slot import SlotState, SlotStatus

_HUNG: Final = 30.0
"""Seconds without an answer after which a worker is stuck."""


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What a worker said last. ``silent_s`` is how long it has not answered since, in seconds; 0 when it did."""

    reasons: tuple[Reason, ...] = ()
    stuck: str | None = None
    silent_s: float = 0.0


def workers_ready(slots: Iterable[SlotStatus], said: Mapping[int, WorkerHealth], *, draining: bool) -> Readiness:
    """Ready when all workers are: each has a part of the messages."""
    if draining:
        return Readiness((Reason("draining", "the gateway is stopping: it takes no new messages"),))
    return Readiness(tuple(reason for slot in slots for reason in _reasons(slot, said.get(slot.number))))


def _reasons(slot: SlotStatus, said: WorkerHealth | None) -> Iterable[Reason]:
    who = f"worker {slot.number}"
    cause = f": it {slot.last_error}" if slot.last_error else ""
    if slot.state in (SlotState.WAITING, SlotState.STOPPED):
        return [Reason("worker_down", f"{who} has been down for {slot.since_s:.1f} s{cause}")]
    if slot.state is SlotState.STARTING or said is None:
        return [Reason("worker_starting", f"{who} is starting{cause}")]
    if said.silent_s:
        return [Reason("worker_silent", f"{who} has not answered for {said.silent_s:.1f} s")]
    return [Reason(one.code, f"{who}: {one.message}") for one in said.reasons]


def workers_stuck(slots: Iterable[SlotStatus], said: Mapping[int, WorkerHealth]) -> str | None:
    """Why a restart of all is the only help, or None. A worker that died is started again anyway."""
    for slot in slots:
        health = said.get(slot.number)
        if slot.state is not SlotState.RUNNING or health is None:
            continue
        if health.silent_s >= _HUNG:
            return f"worker {slot.number} has not answered for {health.silent_s:.0f} s"
        if health.stuck is not None:
            return f"worker {slot.number}: {health.stuck}"
    return None
