"""Places of the disk that cannot be read: they are not waited for without end where the rest of the disk works."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from spanbridge.core.spooled import Lost, Record
from spanbridge.spool.errors import SpoolFault
from spanbridge.spool.segments import PATIENCE, SegmentSpool, SpoolOptions
from tests.fakes import FakeReporter

from .simulated import Content, SimulatedDisk, SimulatedFile

pytestmark = pytest.mark.anyio

BODY = b"x" * 1000


class BadFile(SimulatedFile):
    def __init__(self, disk: BadDisk, content: Content, bad: range) -> None:
        super().__init__(disk, content)
        self._bad = bad

    def read(self, size: int, offset: int) -> bytes:
        if max(offset, self._bad.start) < min(offset + size, self._bad.stop):
            raise OSError(errno.EIO, "input/output error")
        return super().read(size, offset)


class BadDisk(SimulatedDisk):
    """``bad`` are the bytes of each file that cannot be read."""

    bad: dict[str, range]

    def open(self, name: str, *, write: bool = False) -> SimulatedFile:
        if name in getattr(self, "bad", {}):
            self.met("open")
            return BadFile(self, self.files[name], self.bad[name])
        return super().open(name, write=write)


async def filled(path: Path, disk: BadDisk, reporter: FakeReporter) -> SegmentSpool:
    """A spool of 60 messages in three files."""
    options = SpoolOptions(path=path, reserve=0, segment_bytes=20_000)
    spool = SegmentSpool(options, reporter, disk=lambda _: disk)
    await spool.start()
    written = asyncio.get_running_loop().create_future()
    for number in range(60):
        spool.append([(1, BODY)], lambda *_, number=number: written.set_result(None) if number == 59 else None)
    await written
    return spool


async def everything(spool: SegmentSpool) -> list[Record | Lost]:
    found: list[Record | Lost] = []
    while more := await spool.read(1000, 1 << 20):
        found += more
    return found


def told(reporter: FakeReporter) -> list[int]:
    return [event.count for event in reporter.events if event.name == "spool.lost"]


async def test_what_cannot_be_read_for_a_while_is_passed_over_and_told_where_the_disk_works(tmp_path: Path) -> None:
    disk, reporter = BadDisk(), FakeReporter()
    spool = await filled(tmp_path, disk, reporter)
    second = sorted(name for name in disk.files if name.endswith(".seg"))[1]
    disk.bad = {second: range(9_000, 9_100)}
    for _ in range(PATIENCE):
        with pytest.raises(SpoolFault, match="reading the spool failed: input/output error"):
            await everything(spool)
    found = await everything(spool)
    (lost,) = [one for one in found if isinstance(one, Lost)]
    assert 1 <= lost.end - lost.first <= 6, "a page, and the records that reach into it"
    assert [one.number for one in found if isinstance(one, Record)] == [
        number for number in range(60) if not lost.first <= number < lost.end
    ]
    assert told(reporter) == [lost.end - lost.first]
    await spool.stop()


async def test_a_file_that_somebody_removed_holds_up_those_behind_it_for_a_while_only(tmp_path: Path) -> None:
    disk, reporter = BadDisk(), FakeReporter()
    spool = await filled(tmp_path, disk, reporter)
    first, second, third = sorted(name for name in disk.files if name.endswith(".seg"))
    del first, disk.files[second]
    for _ in range(PATIENCE):
        with pytest.raises(SpoolFault):
            await everything(spool)
    found = await everything(spool)
    begin, end = int(second[:20]), int(third[:20])
    assert [one for one in found if isinstance(one, Lost)] == [Lost(begin, end)]
    assert found[-1] == Record(59, 1, BODY)
    await spool.stop()


async def test_nothing_is_passed_over_while_the_whole_disk_is_away(tmp_path: Path) -> None:
    disk, reporter = BadDisk(), FakeReporter()
    spool = await filled(tmp_path, disk, reporter)
    disk.bad = {name: range(1 << 30) for name in disk.files if name.endswith(".seg")}
    for _ in range(PATIENCE + 5):
        disk.fails["write"] = [errno.EIO]
        with pytest.raises(SpoolFault):
            await everything(spool)
    disk.bad = {}
    disk.fails.clear()
    assert [one.number for one in await everything(spool) if isinstance(one, Record)] == list(range(60))
    assert told(reporter) == []
    await spool.stop()


async def test_a_spool_that_was_full_says_that_it_has_room_also_when_nothing_more_comes(tmp_path: Path) -> None:
    disk, reporter = BadDisk(), FakeReporter()
    spool = await filled(tmp_path, disk, reporter)
    disk.capacity = disk.used() + 100
    refused = asyncio.get_running_loop().create_future()
    spool.append([(1, BODY)], lambda *told: refused.set_result(told))
    assert (await refused)[1].reason == "full"
    assert spool.status()["failing"]
    spool.mark(0)
    await spool.read(1, 1)
    assert "spool.recoveries" not in reporter.names()
    disk.capacity = 1 << 30
    spool.mark(0)
    await spool.read(1, 1)
    assert reporter.names().count("spool.recoveries") == 1
    assert not spool.status()["failing"]
    await spool.stop()
