"""The store on a real file system: killed at random, refused, full, missing, of another version."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spanbridge.core.spooled import Lost, Record
from spanbridge.spool.disk import RealDisk, RealFile
from spanbridge.spool.errors import SpoolFault, SpoolFull, SpoolRefused
from spanbridge.spool.segments import SegmentSpool, SpoolOptions
from spanbridge.spool.store import Store, StoreLimits
from tests.fakes import FakeReporter

from .killed import kill_once

LIMITS = StoreLimits(segment=4_000, total=1 << 20, reserve=0)


def opened(path: Path, limits: StoreLimits = LIMITS) -> Store:
    return Store(RealDisk(path), limits)


def everything(store: Store) -> list[Record | Lost]:
    return store.read(store.cursor(), 100_000, 1 << 30)


def test_a_process_that_is_killed_at_random_loses_nothing(tmp_path: Path) -> None:
    for seed in range(6):
        kill_once(tmp_path, seed)


def test_a_second_gateway_is_refused_in_a_line(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(SpoolRefused, match="another gateway uses this spool"):
        opened(tmp_path)
    store.close()
    opened(tmp_path).close()


def test_another_version_is_refused_in_a_line(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "version").write_text("spanbridge spool 2\n")
    with pytest.raises(SpoolRefused, match="of version 2, and this gateway reads version 1"):
        opened(tmp_path)


def test_a_directory_of_somebody_else_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(SpoolRefused, match=r"holds other files \('photo.jpg'\)"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_its_files_are_nobody_elses_to_read(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.commit([(1, b"secret")])
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.close()


def test_segments_are_removed_as_they_are_done(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for _ in range(40):
        store.commit([(1, bytes(500))])
    assert len(list(tmp_path.glob("*.seg"))) >= 5
    store.mark(20)
    assert store.size < 16_000
    store.mark(40, tidy=True)
    assert not list(tmp_path.glob("*.seg"))
    store.close()
    store = opened(tmp_path)
    assert (store.watermark, store.next) == (40, 40)
    store.close()


def test_a_reader_that_begins_deep_in_a_large_segment_gets_what_is_there(tmp_path: Path) -> None:
    store = opened(tmp_path, StoreLimits(segment=8 << 20, total=1 << 30, reserve=0))
    for _ in range(10):
        store.commit([(1, bytes(300))] * 1000)
    found = store.read(store.cursor(9000), 10, 1 << 18)
    assert found[0][0] == 9000
    store.close()


def test_a_segment_truncated_by_hand_costs_what_it_held(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(30):
        store.commit([(1, b"%03d" % number + bytes(500))])
    store.close()
    first, second, *_ = sorted(tmp_path.glob("*.seg"))
    os.truncate(first, first.stat().st_size // 2)
    store = opened(tmp_path)
    found = everything(store)
    lost = [one for one in found if isinstance(one, Lost)]
    assert [one.end for one in lost] == [int(second.name[:20])]
    numbers = [one.number for one in found if isinstance(one, Record)]
    assert numbers == [number for number in range(30) if not lost[0].first <= number < lost[0].end]
    store.close()


def test_a_directory_that_disappears_acknowledges_nothing(tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.mkdir()
    store = opened(path)
    store.commit([(1, b"x")])
    shutil.rmtree(path)
    for _ in range(2):
        with pytest.raises(SpoolFault, match="writing to the spool failed: no such file or directory"):
            store.commit([(1, b"x")])
    store.close()


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; root alone can mount one."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_keeps_what_was_acknowledged_and_goes_on_when_there_is_room(tmpfs: Path) -> None:
    store = opened(tmpfs, StoreLimits(segment=40_000, total=1 << 30, reserve=0))
    while True:
        try:
            store.commit([(1, bytes(3_000))] * 3)
        except SpoolFull:
            break
    kept = store.next
    assert kept > 30
    store.mark(kept // 2)
    store.commit([(1, b"again")])
    found = everything(store)
    assert [one.number for one in found if isinstance(one, Record)] == list(range(kept // 2, kept + 1))
    store.close()


class ReadOnly(RealDisk):
    """A file system that the kernel makes read-only under a gateway that runs, as ext4 does after an error."""

    fails = False

    def create(self, name: str) -> RealFile:
        if self.fails:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().create(name)


def test_a_file_system_that_becomes_read_only_acknowledges_nothing_until_it_is_mended(tmp_path: Path) -> None:
    disk = ReadOnly(tmp_path)
    store = Store(disk, StoreLimits(segment=1, total=1 << 20, reserve=0))
    store.commit([(1, b"kept")])
    disk.fails = True
    for _ in range(2):
        with pytest.raises(SpoolFault, match="writing to the spool failed: read-only file system"):
            store.commit([(1, b"not kept")])
    disk.fails = False
    store.commit([(1, b"again")])
    assert [one.body for one in everything(store) if isinstance(one, Record)] == [b"kept", b"again"]
    store.close()


def test_a_directory_without_permission_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "closed"
    path.mkdir(mode=0o700)
    spool = SegmentSpool(SpoolOptions(path=path), FakeReporter())
    root = not os.geteuid()
    if root:
        os.seteuid(65534)
    else:
        path.chmod(0)
    try:
        with pytest.raises(SpoolRefused, match="permission denied"):
            asyncio.run(spool.start())
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o700)


def test_a_read_only_file_system_is_refused_in_a_line(tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    with pytest.raises(SpoolFault, match="opening the spool failed: read-only file system"):
        opened(tmpfs)
