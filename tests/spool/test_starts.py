"""What a start finds: half of an earlier start, names of long ago, directories that were just made."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from spanbridge.core.spooled import Record
from spanbridge.spool.errors import SpoolFault
from spanbridge.spool.inbox import Errand, SpoolInbox
from spanbridge.spool.segments import SegmentSpool, SpoolOptions
from spanbridge.spool.store import Store, StoreLimits
from tests.fakes import FakeReporter

from .simulated import SimulatedDisk

LIMITS = StoreLimits(segment=700, total=1 << 20, reserve=0)


def test_a_version_file_that_an_earlier_start_could_not_sync_is_on_the_disk_before_messages_are() -> None:
    for seed in range(40):
        disk = SimulatedDisk(seed)
        disk.fails["sync"] = [errno.EIO]
        with pytest.raises(SpoolFault):
            Store(disk, LIMITS)
        disk.locked = False
        store = Store(disk, LIMITS)
        store.commit([(1, b"acknowledged")])
        disk.crash()
        store = Store(disk, LIMITS)
        assert store.read(store.cursor(), 9, 1 << 20) == [Record(0, 1, b"acknowledged")]


def test_after_any_number_of_failed_attempts_the_next_start_finds_what_the_last_one_wrote() -> None:
    disk = SimulatedDisk()
    store = Store(disk, LIMITS)
    for _ in range(0x10002):  # four a second: 4.6 hours of a disk that fails
        disk.fails["create"] = [errno.EROFS]
        with pytest.raises(SpoolFault):
            store.commit([(1, b"")])
    store.commit([(1, b"acknowledged")])
    store.close()
    store = Store(disk, LIMITS)
    assert store.read(store.cursor(), 9, 1 << 20) == [Record(0, 1, b"acknowledged")]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Directories, as they are synced."""
    found: list[Path] = []
    before = os.fsync

    def fsync(descriptor: int) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        before(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


@pytest.mark.anyio
async def test_the_directories_that_it_makes_are_on_the_disk(tmp_path: Path, synced: list[Path]) -> None:
    spool = SegmentSpool(SpoolOptions(path=tmp_path / "var" / "spool", reserve=0), FakeReporter())
    await spool.start()
    await spool.stop()
    assert {tmp_path, tmp_path / "var", tmp_path / "var" / "spool"} <= set(synced)


def test_the_inbox_that_a_command_makes_is_on_the_disk(tmp_path: Path, synced: list[Path]) -> None:
    SpoolInbox(tmp_path).leave(Errand("purge"))
    assert {tmp_path, tmp_path / "inbox"} <= set(synced)


@pytest.mark.anyio
async def test_a_watermark_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    disk, reporter = SimulatedDisk(), FakeReporter()
    spool = SegmentSpool(SpoolOptions(path=tmp_path, reserve=0), reporter, disk=lambda _: disk)
    await spool.start()
    written = asyncio.get_running_loop().create_future()
    spool.append([(1, b"a")], lambda first, error: written.set_result((first, error)))
    assert await written == (0, None)
    disk.fails["sync"] = [errno.EIO]
    spool.mark(1)
    async with asyncio.timeout(20):
        while "spool.watermark.failures" not in reporter.names():
            await asyncio.sleep(0.001)
    assert spool.first == 0
    (event,) = [event for event in reporter.events if event.name == "spool.watermark.failures"]
    assert event.text() == (
        "writing the spool's watermark failed: simulated; messages that were sent stay in the spool, "
        "and go to RocketMQ again after a restart; it is tried again"
    )
    spool.mark(1)
    await spool.stop()
    assert spool.first == 1
