"""Dead letters on this machine's disk: kept, counted, removed, and sent again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spanbridge.core import spooled as form
from spanbridge.core.errors import SinkMisconfigured, SinkRejected, SpanbridgeError
from spanbridge.core.spooled import Record, Spooled
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.store import Store, StoreLimits
from spanbridge.spool.versions import DEAD_LETTERS

from .fakes import FakeDelivery, Stored, route
from .test_spill import Rig, running

pytestmark = pytest.mark.anyio

SMALL = route("devices/{device}/#", max_payload=10)
FOREVER = 10**9


def kept(path: Path) -> list[Spooled]:
    """What is on the disk, as another process reads it."""
    store = Store(RealDisk(path / DEAD_LETTERS), StoreLimits(), read_only=True)
    found = store.read(store.cursor(), 100_000, 1 << 30)
    store.close()
    return [form.decode(one.body) for one in found if isinstance(one, Record)]


def refusing(marked: bytes) -> Any:
    """A cluster that takes no batch with such a message in it."""

    def respond(batch: list[Stored]) -> Exception | None:
        bad = any(marked in stored.body for stored in batch)
        return SinkRejected("illegal", reason="illegal_message_tag") if bad else None

    return respond


async def test_what_a_limit_refuses_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters={}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        good, bad = rig.send("devices/a/t", "good", "x" * 20, user_properties=[("unit", "C")])
        await rig.answered([good, bad])
        (letter,) = kept(tmp_path)
        assert (letter.publish.topic, letter.publish.payload, letter.reason) == ("devices/a/t", b"x" * 20, "too_large")
        assert "20 bytes" in letter.error
        assert list(letter.publish.user_properties) == [("unit", "C")]
        assert rig.bodies() == ["good"]
        assert rig.metrics.counts["rejected", "devices/{device}/#", "too_large", "(spool)"] == 1
        (row,) = [row for row in rig.uplink.routes() if row["filter"] == "devices/{device}/#"]
        assert (row["rejected"], row["rejected_topic"], row["reasons"]) == (1, "(spool)", {"too_large": 1})
        assert rig.spool.end == 0, "the spool of messages that wait is untouched"


async def test_what_rocketmq_refuses_is_kept_alone(tmp_path: Path) -> None:
    async with running(tmp_path, letters={}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        rig.away = refusing(b"bad")
        sent = rig.send("devices/a/t", "1", "bad", "2", "3")
        await rig.answered(sent)
        assert sorted(rig.bodies()) == ["1", "2", "3"]
        (letter,) = kept(tmp_path)
        assert (letter.publish.payload, letter.reason) == (b"bad", "illegal_message_tag")


async def test_a_topic_that_a_device_named_and_that_is_missing_ends_there(tmp_path: Path) -> None:
    async with running(
        tmp_path, route("d/{device}", "t-{device}"), letters={}, rejected_max_age=FOREVER, after=FOREVER
    ) as rig:
        rig.away = lambda batch: SinkMisconfigured("no such topic", reason="topic_not_found")
        (sent,) = rig.send("d/a", "1")
        await rig.answered([sent])
        await rig.until(lambda: [letter.reason for letter in kept(tmp_path)] == ["topic_not_found"])


async def test_dead_letters_out_of_the_spool_do_not_hold_its_watermark(tmp_path: Path) -> None:
    async with running(tmp_path, letters={}, rejected_max_age=FOREVER) as rig:
        rig.go_away()
        sent = rig.send("devices/a/t", *(f"{number}{'bad' * (number % 3 == 0)}" for number in range(60)))
        await rig.until(lambda: rig.spooled == 60)
        await rig.answered(sent)
        rig.away = refusing(b"bad")
        await rig.until(lambda: rig.spooled == 0)
        assert len(rig.bodies()) == 40
        assert [letter.publish.payload for letter in kept(tmp_path)] == [b"%dbad" % n for n in range(0, 60, 3)]


async def test_a_limit_set_while_messages_are_in_the_spool_makes_dead_letters_of_them(tmp_path: Path) -> None:
    async with running(tmp_path, letters={}, rejected_max_age=FOREVER) as rig:
        rig.go_away()
        rig.send("devices/a/t", "1", "x" * 20, "2")
        await rig.until(lambda: rig.spooled == 3)
    async with running(tmp_path, SMALL, letters={}, rejected_max_age=FOREVER) as rig:
        await rig.until(lambda: rig.spooled == 0)
        assert rig.bodies() == ["1", "2"]
        assert [letter.reason for letter in kept(tmp_path)] == ["too_large"]


async def put_back(rig: Rig, *reasons: str) -> tuple[int, int]:
    letters, spill = rig.uplink.dead_letters, rig.uplink.spill
    assert letters is not None
    assert spill is not None
    return await letters.give_back(reasons, spill.put)


async def test_they_are_sent_again_once_what_was_wrong_is_mended(tmp_path: Path) -> None:
    async with running(tmp_path, letters={}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        rig.away = refusing(b"bad")
        sent = rig.send("devices/a/t", *(f"bad{number}" for number in range(50)))
        await rig.answered(sent)
        await rig.until(lambda: rig.rejected is not None and rig.rejected.end == 50)
        rig.come_back()
        assert await put_back(rig) == (50, 0)
        await rig.until(lambda: len(rig.bodies()) == 50)
        assert sorted(rig.bodies()) == sorted(f"bad{number}" for number in range(50))
        await rig.until(lambda: rig.spooled == 0)
        assert kept(tmp_path) == []
        rig.send("devices/a/t", "live")
        await rig.until(lambda: "live" in rig.bodies())


async def test_those_of_one_reason_are_sent_again_and_the_others_stay(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters={}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        rig.away = refusing(b"bad")
        sent = rig.send("devices/a/t", "bad", "x" * 20)
        await rig.answered(sent)
        rig.come_back()
        assert await put_back(rig, "illegal_message_tag") == (1, 1)
        await rig.until(lambda: rig.bodies() == ["bad"])
        assert [letter.reason for letter in kept(tmp_path)] == ["too_large"]


async def test_one_that_is_rejected_again_is_a_dead_letter_again(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters={}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        await rig.answered(rig.send("devices/a/t", "x" * 20))
        assert await put_back(rig) == (1, 0)
        await rig.until(lambda: rig.spool.end == 1 and rig.spooled == 0)
        await rig.until(lambda: [letter.reason for letter in kept(tmp_path)] == ["too_large"])


FULL = {"max_bytes": 40_000, "segment_bytes": 4_000}


async def test_when_they_have_no_room_the_oldest_make_some_and_that_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters=FULL, rejected_max_age=FOREVER, after=FOREVER) as rig:
        sent: list[FakeDelivery] = []
        for number in range(100):
            sent += rig.send("devices/a/t", f"{number:03}" + "x" * 900)
            await rig.answered(sent)
        found = [int(letter.publish.payload[:3]) for letter in kept(tmp_path)]
        assert found == list(range(100 - len(found), 100))
        assert 20 < len(found) < 60
        removed = [event for event in rig.reporter.events if event.name == "spool.rejected.removed"]
        assert sum(event.count for event in removed) == 100 - len(found)
        assert {tuple(event.labels().items()) for event in removed} == {(("reason", "full"),)}


async def test_one_that_is_too_large_is_dropped_and_pushes_out_no_other(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters=FULL, rejected_max_age=FOREVER, after=FOREVER) as rig:
        await rig.answered(rig.send("devices/a/t", "x" * 100))
        await rig.answered(rig.send("devices/a/t", "x" * 20_000))
        assert len(kept(tmp_path)) == 1
        assert rig.metrics.counts["dropped", "devices/{device}/#", "too_large"] == 1


async def test_what_the_disk_does_not_take_is_dropped_and_holds_up_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters={"reserve": 1 << 60}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        sent = rig.send("devices/a/t", "x" * 20, "good")
        await rig.answered(sent)
        assert rig.bodies() == ["good"]
        assert rig.metrics.counts["dropped", "devices/{device}/#", "too_large"] == 1
        assert rig.metrics.counts["rejected", "devices/{device}/#", "too_large", "(spool)"] == 0


async def test_those_that_are_too_old_are_removed_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters={}, rejected_max_age=3600, after=FOREVER) as rig:
        await rig.answered(rig.send("devices/a/t", "x" * 20, "x" * 21))
        rig.clock.set = 10**18
        letters = rig.uplink.dead_letters
        assert letters is not None
        await letters.expire()
        assert len(kept(tmp_path)) == 2, "Unix time was set: they are as old as before"
        rig.clock.now += 3601 * 10**9
        await rig.until(lambda: kept(tmp_path) == [])
        removed = [event for event in rig.reporter.events if event.name == "spool.rejected.removed"]
        assert [(event.count, event.labels()) for event in removed] == [(2, {"reason": "max_age"})]


async def test_none_is_lost_where_sending_again_fails_half_way(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters={}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        await rig.answered(rig.send("devices/a/t", "x" * 20))
        letters = rig.uplink.dead_letters
        assert letters is not None

        async def put(found: Sequence[Spooled]) -> None:
            raise SinkMisconfigured("no room")

        with pytest.raises(SinkMisconfigured):
            await letters.give_back((), put)
        assert len(kept(tmp_path)) == 1


async def test_the_trace_of_a_dead_letter_goes_on_when_it_is_sent_again(tmp_path: Path) -> None:
    async with running(tmp_path, letters={}, rejected_max_age=FOREVER, after=FOREVER) as rig:
        rig.away = refusing(b"bad")
        await rig.answered(rig.send("devices/a/t", "bad"))
        (letter,) = kept(tmp_path)
        assert letter.trace is not None
        rig.come_back()
        await put_back(rig)
        await rig.until(lambda: rig.bodies() == ["bad"])
        parent = rig.sink.stored[0].properties["traceparent"]
        assert parent == f"00-{letter.trace.trace_id.hex()}-{letter.trace.send_id.hex()}-03"


async def test_those_that_stay_and_find_no_room_have_the_others_sent_again_once(tmp_path: Path) -> None:
    async with running(tmp_path, SMALL, letters=FULL, rejected_max_age=FOREVER, after=FOREVER) as rig:
        rig.away = refusing(b"bad")
        await rig.answered(rig.send("devices/a/t", "bad1", "bad2"))
        for number in range(38):
            await rig.answered(rig.send("devices/a/t", f"{number:03}" + "x" * 900))
        assert rig.rejected is not None
        rig.come_back()
        for _ in range(3):
            with pytest.raises(SpanbridgeError):
                await put_back(rig, "illegal_message_tag")
        await rig.until(lambda: len(rig.bodies()) == 2)
        assert rig.bodies() == ["bad1", "bad2"]
        assert len(kept(tmp_path)) == 40
