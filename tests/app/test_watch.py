"""What health is made from."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from spanbridge.app.services import ProbeService
from spanbridge.app.watch import Watch
from spanbridge.core.health import Thresholds
from tests.uplink.fakes import FakeClock, FakeSink

pytestmark = pytest.mark.anyio


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
