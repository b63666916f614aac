"""What the spool leaves behind once it is empty: nothing of messages that never reached RocketMQ."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.ports import Link, PeerStatus
from spanbridge.telemetry import Peer

from .fakes import FakeSink, FakeSource, Stored, route
from .test_spill import running

pytestmark = pytest.mark.anyio

DEVICES = "devices/{device}/#"


async def test_a_partition_whose_messages_all_expire_keeps_no_spool_open(tmp_path: Path) -> None:
    async with running(tmp_path, after=1.0) as rig:
        spill = rig.uplink.spill
        assert spill is not None
        rig.go_away()
        await rig.answered(rig.send("devices/d1/t", "a", "b", expiry=30))
        await rig.until(lambda: rig.metrics.counts["dropped", DEVICES, "expired"] == 2)
        await rig.until(lambda: spill.idle)
        assert spill.oldest_ns is None
        rig.come_back()
        rig.send("devices/d1/t", "c")
        await rig.until(lambda: rig.bodies() == ["c"])
        assert spill.spooled == 2, "it went straight through"


async def test_a_topic_that_a_device_made_up_is_forgotten_once_its_messages_are_rejected(tmp_path: Path) -> None:
    def missing(batch: list[Stored]) -> Exception | None:
        return SinkMisconfigured("no such topic", reason="topic_not_found") if batch[0].topic == "made-up" else None

    async with running(tmp_path, route("by/{kind}/#", "{kind}"), after=1.0, letters={}) as rig:
        spill = rig.uplink.spill
        assert spill is not None
        rig.away = missing
        await rig.answered(rig.send("by/made-up/x", "a", "b"))
        await rig.until(lambda: rig.rejected is not None and rig.rejected.end == 2)
        await rig.until(lambda: spill.idle)


async def test_qos_0_messages_that_expire_in_the_spool_give_their_share_back(tmp_path: Path) -> None:
    async with running(tmp_path, after=1.0, qos0_share=0.1, options={"max_bytes": 200_000}) as rig:
        rig.go_away()
        counts = rig.metrics.counts
        for _ in range(3):
            before = counts["dropped", DEVICES, "expired"]
            await rig.answered(rig.send("devices/d1/t", *["x" * 100] * 100, expiry=30, qos=0))
            assert not counts["dropped", DEVICES, "qos0_share"]
            await rig.until(lambda before=before: counts["dropped", DEVICES, "expired"] == before + 100)  # type: ignore[misc]


class AwaySink(FakeSink):
    """A sink that says how its connection is."""

    link = Link.UP

    @property
    def status(self) -> PeerStatus:
        return PeerStatus("rocketmq", self.link, 0, None, {})


async def test_a_topic_that_turns_out_to_fail_alone_lets_the_others_by_without_a_new_message(tmp_path: Path) -> None:
    sink = AwaySink()
    async with running(tmp_path, route("bad/#", "bad"), route("good/#", "good"), sink=sink) as rig:
        sink.link = Link.BACKOFF
        rig.go_away()
        rig.send("bad/t", *(f"b{number}" for number in range(100)))
        rig.send("good/t", *(f"g{number}" for number in range(100)))
        await rig.until(lambda: rig.spooled == 200)
        failures = len(rig.sink.requests)
        await rig.until(lambda: len(rig.sink.requests) > failures + 5)

        def missing(batch: list[Stored]) -> Exception | None:
            return SinkMisconfigured("no such topic", reason="topic_not_found") if batch[0].topic == "bad" else None

        rig.away, sink.link = missing, Link.UP
        await rig.until(lambda: len(rig.bodies("good")) == 100)


async def test_a_route_that_leaves_the_spool_keeps_its_order(tmp_path: Path) -> None:
    async with running(tmp_path, route("a/#", "out")) as rig:
        spill = rig.uplink.spill
        assert spill is not None
        rig.go_away()
        rig.send("a/t", *(str(number) for number in range(40)))
        await rig.until(lambda: rig.spooled == 40)
        rig.uplink.reroute([route("a/#", "out", spool=False)])
        rig.send("a/t", "40", "41")
        requests = len(rig.sink.requests)
        await rig.until(lambda: len(rig.sink.requests) > requests + 3)
        rig.come_back()
        rig.send("a/t", "42")
        await rig.until(lambda: len(set(rig.bodies())) == 43)
        assert list(dict.fromkeys(rig.bodies())) == [str(number) for number in range(43)]
        await rig.until(lambda: spill.idle)
        spooled = spill.spooled
        rig.go_away()
        (last,) = rig.send("a/t", "43")
        slept = sum(rig.clock.slept)
        await rig.until(lambda: sum(rig.clock.slept) > slept + 30)
        assert not last.answered
        assert spill.spooled == spooled, "it stays out of the spool from now on"
        rig.come_back()
        await rig.answered([last])


async def test_what_is_in_the_spool_waits_while_there_is_no_connection_at_all(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.go_away()
        await rig.answered(rig.send("devices/d1/t", *(str(number) for number in range(40))))
        await rig.uplink.detach(rig.source)
        rig.come_back()
        slept = sum(rig.clock.slept)
        await rig.until(lambda: sum(rig.clock.slept) > slept + 30)
        another = FakeSource("another")
        rig.uplink.attach(another, [route("devices/{device}/#")], Peer("broker", 1883, "edge"))
        await rig.until(lambda: len(set(rig.bodies())) == 40)
        await rig.uplink.drain(1)


async def test_a_clock_that_is_set_makes_no_message_too_old(tmp_path: Path) -> None:
    """A machine without a clock of its own finds the time together with the network."""
    async with running(tmp_path, max_age=3600.0) as rig:
        rig.go_away()
        await rig.answered(rig.send("devices/d1/t", *(str(number) for number in range(40))))
        rig.clock.set = 10**18
        rig.come_back()
        await rig.until(lambda: rig.spooled == 0)
        assert len(set(rig.bodies())) == 40
        rig.go_away()
        await rig.answered(rig.send("devices/d1/t", *(f"late {number}" for number in range(40))))
        rig.clock.now += 3601 * 10**9
        rig.come_back()
        await rig.until(lambda: rig.spooled == 0)
        assert rig.metrics.counts["dropped", DEVICES, "max_age"] > 0
