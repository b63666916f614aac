"""What health is made from."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from spanbridge.app.services import ProbeService
from spanbridge.app.watch import Watch
from spanbridge.core.health import Thresholds
from spanbridge.ports import Link, PeerStatus
from tests.uplink.fakes import FakeClock, FakeSink

pytestmark = pytest.mark.anyio

_NO_BATCHES = {"stored": 0, "failed": 0, "messages": 0, "stored_ns": 0}


async def test_a_clock_that_is_set_makes_no_probe_stale() -> None:
    """A machine without a clock of its own finds the time together with the network."""
    clock, idle = FakeClock(), SimpleNamespace(oldest_age=lambda: 0.0, status=dict, routes=list, batches=dict)
    uplink: Any = idle
    watch = Watch([], FakeSink(), uplink, clock, thresholds=Thresholds())
    probe = ProbeService(FakeSink(), watch, clock, 10)
    await probe.start()
    async with asyncio.timeout(5):
        while not clock.slept:
            await asyncio.sleep(0)
    await probe.stop()
    clock.set = 10**18
    assert watch.readiness().ready
    clock.now += 31 * 10**9
    clock.set = -(10**12)
    assert [reason.code for reason in watch.readiness().reasons] == ["probe_stale"]


async def test_how_long_ago_the_last_error_of_a_connection_was() -> None:
    clock, source, sink = FakeClock(), SimpleNamespace(), SimpleNamespace()
    source.status = sink.status = PeerStatus("plant", Link.UP, 0, None, {})
    peers: Any = ([source], sink)
    uplink: Any = SimpleNamespace(
        oldest_age=lambda: 0.0, status=lambda: {"received": 0, "sent": 0}, routes=list, batches=lambda: _NO_BATCHES
    )
    watch = Watch(*peers, uplink, clock, thresholds=Thresholds())

    def ages() -> list[float | None]:
        told = watch.status()
        return [row["last_error_age_s"] for row in (*told["mqtt"], told["rocketmq"])]

    assert ages() == [None, None]
    source.status = replace(source.status, last_error="away", last_error_ns=clock.now_ns())
    clock.now += 2 * 10**9
    assert ages() == [2.0, None]
    source.status = replace(source.status, last_error=None)
    sink.status = replace(sink.status, last_error="away", last_error_ns=clock.now_ns())
    clock.now += 10**9
    assert ages() == [3.0, 1.0]


async def test_what_is_wrong_on_the_way_down() -> None:
    clock = FakeClock()
    uplink: Any = SimpleNamespace(oldest_age=lambda: 0.0, status=dict, routes=list, batches=dict, stuck=lambda: None)
    downlinks: Any = SimpleNamespace(oldest_age=lambda: 31.0, stuck=lambda: "messages of downlink 'c' are lost")
    away: Any = SimpleNamespace(status=PeerStatus("x", Link.BACKOFF, 0, "refused", {}))
    watch = Watch(
        [],
        FakeSink(),
        uplink,
        clock,
        thresholds=Thresholds(),
        downlinks=downlinks,
        publishers={"edge": away},
        consumers={"commands": away},
    )
    watch.probed(None)
    found = {reason.code: reason.message for reason in watch.readiness().reasons}
    assert set(found) == {"undelivered", "publisher_down", "consumer_down"}
    assert "'edge'" in found["publisher_down"]
    assert "'commands'" in found["consumer_down"]
    assert found["consumer_down"].endswith(": refused")
    assert watch.liveness() == "messages of downlink 'c' are lost"


async def test_a_clock_that_is_set_changes_neither_rates_nor_uptime() -> None:
    clock, counts = FakeClock(), {"received": 0, "sent": 0}
    uplink: Any = SimpleNamespace(
        oldest_age=lambda: 0.0, status=lambda: counts, routes=list, batches=lambda: _NO_BATCHES
    )
    watch = Watch([], FakeSink(), uplink, clock, thresholds=Thresholds())
    watch.read_rates()
    clock.now += 10 * 10**9
    clock.set, counts["received"] = -(10**12), 50
    watch.read_rates()
    told = watch.status()
    assert (told["uplink"]["received_per_s"], told["uptime_s"]) == (5.0, 10.0)
    clock.now += 10 * 10**9
    clock.set, counts["received"] = 10**18, 100
    watch.read_rates()
    told = watch.status()
    assert (told["uplink"]["received_per_s"], told["uptime_s"]) == (5.0, 20.0)
