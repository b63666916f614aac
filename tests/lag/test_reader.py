"""What a reading makes of a cluster's answers, and how many it needs."""

from __future__ import annotations

import pytest

from spanbridge.core.errors import OffsetsError
from spanbridge.lag import LagOptions, LagReader, LagReading, LagState, Meaning, WatchedGroup
from tests.lag.fakes import FakeOffsets, StillClock

pytestmark = pytest.mark.anyio
CLOCK = 1_800_000_000_000


def reader(offsets: FakeOffsets, *groups: WatchedGroup, clock: StillClock | None = None, **more: object) -> LagReader:
    return LagReader(offsets, LagOptions(groups=groups, **more), clock or StillClock(CLOCK))  # type: ignore[arg-type]


def summary(reading: LagReading) -> list[tuple[str, str, str, str, int | None]]:
    return [(row.group, row.topic, str(row.state), str(row.means), row.lag) for row in reading.rows]


async def test_a_pop_group_is_told_as_not_delivered_and_an_ordered_one_as_not_acknowledged() -> None:
    offsets = FakeOffsets()
    queue = offsets.add("t", *([CLOCK - 60_000] * 10))
    offsets.configured = {"pop": False, "fifo": True, "classic": False}
    offsets.online = {"pop": 1, "fifo": 1, "classic": 1}
    offsets.commits = {("pop", queue): 10, ("fifo", queue): 2, ("classic", queue): 4}
    groups = (WatchedGroup("pop", ("t",)), WatchedGroup("fifo", ("t",)), WatchedGroup("classic", ("t",), pops=False))
    found = await reader(offsets, *groups).read()
    assert summary(found) == [
        ("pop", "t", "consumed", "not_delivered", 0),
        ("fifo", "t", "consumed", "not_acknowledged", 8),
        ("classic", "t", "consumed", "not_acknowledged", 6),
    ]
    assert [row.age for row in found.rows] == [None, pytest.approx(60, rel=0.1), pytest.approx(60, rel=0.1)]


async def test_groups_without_offsets_are_shown_as_such() -> None:
    offsets = FakeOffsets()
    offsets.add("t", CLOCK, CLOCK)
    left = offsets.add("u", CLOCK)
    offsets.configured = {"new": False, "left": False}
    offsets.commits = {("left", left): 1}
    groups = [
        WatchedGroup(name, (topic,)) for name, topic in (("new", "t"), ("typo", "t"), ("new", "none"), ("left", "u"))
    ]
    found = await reader(offsets, *groups).read()
    assert [(row.state, row.lag, row.uncommitted) for row in found.rows] == [
        (LagState.NEVER_COMMITTED, None, 2),
        (LagState.NO_GROUP, None, 2),
        (LagState.NO_TOPIC, None, 0),
        (LagState.NO_CONSUMER, 0, 0),
    ]
    assert found.errors == ()


async def test_a_broker_that_does_not_say_leaves_the_meaning_unknown_unless_the_file_tells() -> None:
    offsets = FakeOffsets()
    offsets.commits = {(group, offsets.add("t")): 0 for group in ("asked", "told")}
    offsets.failing = {"ordered": OffsetsError("refused", reason="request_code_not_supported")}
    found = await reader(offsets, WatchedGroup("asked", ("t",)), WatchedGroup("told", ("t",), ordered=True)).read()
    assert [row.means for row in found.rows] == [Meaning.UNKNOWN, Meaning.NOT_ACKNOWLEDGED]
    assert found.errors == ()


async def test_retry_topics_and_dead_letters_come_along() -> None:
    offsets = FakeOffsets()
    offsets.configured = {"g": False}
    offsets.commits = {
        ("g", offsets.add("t", CLOCK)): 1,
        ("g", offsets.add("%RETRY%g_t", CLOCK, CLOCK, CLOCK)): 1,
    }
    offsets.add("%DLQ%g", *([CLOCK] * 5), deleted=1)
    found = await reader(offsets, WatchedGroup("g", ("t",))).read()
    assert [(row.topic, row.retry, row.lag) for row in found.rows] == [("t", False, 0), ("%RETRY%g_t", True, 2)]
    assert found.dead_letters == {"g": 4}
    without = await reader(offsets, WatchedGroup("g", ("t",)), retries=False).read()
    assert [row.topic for row in without.rows] == ["t"]


async def test_groups_are_looked_up_where_none_is_given() -> None:
    offsets = FakeOffsets()
    offsets.commits = {("a", offsets.add("t")): 0, ("b", offsets.add("t")): 0, ("b", offsets.add("u")): 0}
    found = await reader(offsets, topics=("t", "u")).read()
    assert [(row.group, row.topic) for row in found.rows] == [("a", "t"), ("b", "t"), ("b", "u")]


async def test_an_age_is_searched_for_once_and_then_counted() -> None:
    offsets, clock = FakeOffsets(), StillClock(CLOCK)
    queue = offsets.add("t", CLOCK - 60_000, CLOCK - 1000)
    offsets.commits = {("g", queue): 0}
    reads = reader(offsets, WatchedGroup("g", ("t",)), clock=clock)
    first = (await reads.read()).rows[0].age
    offsets.asked.clear()
    clock.ms += 30_000
    second = (await reads.read()).rows[0].age
    assert first is not None
    assert second == first + 30
    assert "at" not in offsets.asked
    offsets.commits = {("g", queue): 1}
    assert (await reads.read()).rows[0].age == pytest.approx(31, rel=0.1)


async def test_a_broker_that_is_away_is_asked_once_and_the_others_are_read() -> None:
    offsets = FakeOffsets()
    offsets.online = {"g": 1}
    offsets.commits = {("g", offsets.add("u", queue=queue)): 0 for queue in range(8)}
    for queue in range(50):
        offsets.add("t", broker="broker-b", queue=queue)
    real = offsets.max_offset

    async def max_offset(queue: object) -> int:
        if queue.broker == "broker-b":  # type: ignore[attr-defined]
            raise OffsetsError("broker-b is away", reason="unavailable")
        return await real(queue)  # type: ignore[arg-type]

    offsets.max_offset = max_offset  # type: ignore[method-assign]
    found = await reader(offsets, WatchedGroup("g", ("t", "u"))).read()
    assert [(row.topic, row.state) for row in found.rows] == [("t", LagState.UNREADABLE), ("u", LagState.CONSUMED)]
    assert found.rows[0].error == "broker-b is away"
    assert found.errors == (("broker-b is away", "unavailable"),)


async def test_requests_are_bounded_and_ages_go_first() -> None:
    offsets = FakeOffsets()
    for queue in range(8):
        offsets.commits["g", offsets.add("t", *([CLOCK - 60_000] * 3), queue=queue)] = 1
    group = WatchedGroup("g", ("t",))
    whole = await reader(offsets, group, retries=False).read()
    assert whole.requests == 1 + 2 + 3 * 8 + 8 * (len([one for one in offsets.asked if one == "at"]) // 8)
    offsets.requests = 0
    bounded = await reader(offsets, group, retries=False, max_requests=30).read()
    assert offsets.requests == bounded.requests == 30
    assert bounded.rows[0].lag == 16
    assert [reason for _, reason in bounded.errors] == ["max_requests"]
