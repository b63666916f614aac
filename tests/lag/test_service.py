"""The service: readings, gauges, /status, and failures that change nothing else."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from spanbridge.core.errors import OffsetsError
from spanbridge.lag import LagOptions, LagService, WatchedGroup
from spanbridge.lag.events import LagReadable, LagUnreadable
from spanbridge.lag.gauges import register
from spanbridge.telemetry.metrics.meter import Instruments
from tests.lag.fakes import FakeOffsets, StillClock, Told

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000_000
OPTIONS = LagOptions(groups=(WatchedGroup("g", ("t",)), WatchedGroup("new", ("t",))))


async def readings(service: LagService, count: int) -> None:
    with anyio.fail_after(30):
        while service.status()["readings"] < count:
            await anyio.sleep(0.001)


def exported(service: LagService) -> dict[str, list[tuple[dict[str, Any], float]]]:
    instruments = Instruments()
    register(instruments.gauge, lambda: service.reading)
    metrics = instruments.reader().read()
    return {one.name: [(dict(point.attributes), point.value) for point in one.points] for one in metrics}  # type: ignore[union-attr]


def cluster() -> FakeOffsets:
    offsets = FakeOffsets()
    offsets.configured = {"g": False, "new": False}
    offsets.online = {"g": 2}
    offsets.commits = {("g", offsets.add("t", *([NOW - 60_000] * 5))): 2}
    return offsets


async def test_gauges_and_status_show_the_last_reading() -> None:
    offsets, clock, told = cluster(), StillClock(NOW), Told()
    service = LagService(offsets, OPTIONS, clock, told)
    assert exported(service) == {}
    await service.start()
    await readings(service, 1)
    found = exported(service)
    labels = {
        "messaging.consumer.group.name": "g",
        "messaging.destination.name": "t",
        "messaging.destination.partition.id": "0",
        "broker": "broker-a",
        "spanbridge.lag.means": "not_delivered",
    }
    assert found["spanbridge.rocketmq.consumer.lag"] == [(labels, 3)]
    ((age_labels, age),) = found["spanbridge.rocketmq.consumer.lag.age"]
    assert age_labels == labels
    assert age == pytest.approx(60, rel=0.1)
    true = [
        (point["messaging.consumer.group.name"], point["status"])
        for point, value in found["spanbridge.rocketmq.consumer.status"]
        if value
    ]
    assert true == [("g", "consumed"), ("new", "never_committed")]
    uncommitted = [value for _, value in found["spanbridge.rocketmq.consumer.uncommitted"]]
    assert uncommitted == [0, 5]
    shown = service.show()
    assert json.loads(json.dumps(shown)) == shown
    assert [(row["group"], row["state"], row["lag"]) for row in shown["groups"]] == [
        ("g", "consumed", 3),
        ("new", "never_committed", None),
    ]
    assert service.status()["degraded"] is False
    await service.stop()
    await service.stop()
    assert offsets.closed
    assert told.events == []


async def test_a_failure_is_told_and_shows_no_number() -> None:
    offsets, clock, told = cluster(), StillClock(NOW), Told()
    service = LagService(offsets, OPTIONS, clock, told)
    offsets.failing = {"queues": OffsetsError("nobody answers", reason="timeout")}
    await service.start()
    await readings(service, 1)
    (event,) = told.events
    assert isinstance(event, LagUnreadable)
    assert event.text() == (
        "the consumer lag could not be read: nobody answers; messages are not affected, it is read again"
    )
    assert event.labels() == {"error.type": "timeout"}
    assert "spanbridge.rocketmq.consumer.lag" not in exported(service)
    assert service.status()["degraded"] is True
    assert service.status()["last_error"] == "nobody answers"
    offsets.failing = {}
    clock.woken.set()
    await readings(service, 2)
    assert [type(one) for one in told.events] == [LagUnreadable, LagReadable]
    assert service.status()["degraded"] is False
    await service.stop()


async def test_an_old_reading_is_not_shown() -> None:
    clock = StillClock(NOW)
    service = LagService(cluster(), OPTIONS, clock, Told())
    await service.start()
    await readings(service, 1)
    assert service.reading is not None
    clock.ms += 91_000
    assert service.reading is None
    assert exported(service) == {}
    await service.stop()


async def test_a_fault_of_ours_ends_nothing() -> None:
    offsets, clock, told = cluster(), StillClock(NOW), Told()
    healthy, offsets.commits = offsets.commits, None  # type: ignore[assignment]
    service = LagService(offsets, OPTIONS, clock, told)
    await service.start()
    with anyio.fail_after(30):
        while not told.events:
            await anyio.sleep(0.001)
    assert service.status()["degraded"] is True
    offsets.commits = healthy
    clock.woken.set()
    await readings(service, 1)
    assert [type(one) for one in told.events] == [LagUnreadable, LagReadable]
    await service.stop()
