"""A disk that fails and forgets as real ones do, after what the test draws.

What is written and not synced is pending. A crash keeps of it what a disk may keep: any of the pending writes in any
order, whole or torn at any byte; any of the names that were made or removed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random


@dataclass
class Content:
    """A file. ``now`` is what a reader sees, ``kept`` what is on the disk, ``pending`` the writes in between."""

    now: bytearray = field(default_factory=bytearray)
    kept: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes]] = field(default_factory=list)


def _put(target: bytearray, offset: int, data: bytes) -> None:
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


class SimulatedDisk:
    """One directory. ``fails`` maps an operation to the error number that its next calls meet."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.files: dict[str, Content] = {}
        self.kept: dict[str, Content] = {}
        self.capacity = 1 << 30
        self.fails: dict[str, list[int]] = {}
        self.short = False
        self.locked = False
        self.calls: list[str] = []
        self.watch: Callable[[str], None] = lambda _: None

    def met(self, what: str) -> None:
        """Note a call, and fail it if that is due."""
        self.calls.append(what)
        self.watch(what)
        due = self.fails.get(what)
        if due:
            raise OSError(due.pop(0), "simulated")

    def used(self) -> int:
        return sum(len(file.now) for file in self.files.values())

    def names(self) -> dict[str, int]:
        self.met("names")
        return {name: len(file.now) for name, file in self.files.items()}

    def create(self, name: str) -> SimulatedFile:
        self.met("create")
        if name in self.files:
            raise FileExistsError(errno.EEXIST, "simulated")
        self.files[name] = Content()
        return SimulatedFile(self, self.files[name])

    def open(self, name: str, *, write: bool = False) -> SimulatedFile:
        self.met("open")
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "simulated")
        return SimulatedFile(self, self.files[name])

    def unlink(self, name: str) -> None:
        self.met("unlink")
        if self.files.pop(name, None) is None:
            raise FileNotFoundError(errno.ENOENT, "simulated")

    def sync(self) -> None:
        self.met("sync_directory")
        self.kept = dict(self.files)

    def free(self) -> int:
        return max(0, self.capacity - self.used())

    def lock(self) -> bool:
        self.locked, before = True, self.locked
        return not before

    def close(self) -> None:
        self.locked = False

    def crash(self) -> None:
        """Lose power: what was pending is kept in part."""
        draw = self.random
        names: dict[str, Content] = {}
        for name in self.kept.keys() | self.files.keys():
            before, after = self.kept.get(name), self.files.get(name)
            one = after if before is None or (after is not None and draw.random() < 0.5) else before
            if before is not None and after is None and draw.random() < 0.5:
                continue  # it was removed
            if before is None and draw.random() < 0.5:
                continue  # it had just been made
            assert one is not None
            names[name] = one
        for file in names.values():
            pending = [write for write in file.pending if draw.random() < 0.6]
            draw.shuffle(pending)
            for offset, data in pending:
                torn = draw.randrange(len(data) + 1) if draw.random() < 0.4 else len(data)
                _put(file.kept, offset, data[:torn])
            file.now, file.pending = bytearray(file.kept), []
        self.files, self.kept = names, dict(names)
        self.locked = False
        self.fails.clear()

    def flip(self, name: str, at: int, bit: int) -> None:
        """Spoil a bit, on the disk and in what is read."""
        file = self.files[name]
        for content in (file.now, file.kept):
            if at < len(content):
                content[at] ^= 1 << bit


class SimulatedFile:
    """An open file of a simulated disk."""

    def __init__(self, disk: SimulatedDisk, content: Content) -> None:
        self._disk = disk
        self._content = content

    def write(self, data: bytes) -> int:
        return self._write(data, len(self._content.now))

    def write_at(self, data: bytes, offset: int) -> int:
        return self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> int:
        disk, content = self._disk, self._content
        disk.met("write")
        room = disk.capacity - disk.used() - max(0, offset - len(content.now))
        fresh = max(0, offset + len(data) - len(content.now))
        if fresh > room:
            data = data[: max(0, len(data) - (fresh - room))]
            if not data:
                raise OSError(errno.ENOSPC, "no space left on device")
        elif disk.short and len(data) > 1:
            data = data[: disk.random.randint(1, len(data))]
        _put(content.now, offset, data)
        content.pending.append((offset, data))
        return len(data)

    def read(self, size: int, offset: int) -> bytes:
        self._disk.met("read")
        return bytes(self._content.now[offset : offset + size])

    def sync(self) -> None:
        """After an error the pages count as clean, and what of them is on the disk nobody knows."""
        content = self._content
        try:
            self._disk.met("sync")
        except OSError:
            for offset, data in content.pending:
                if self._disk.random.random() < 0.5:
                    _put(content.kept, offset, data)
            content.pending.clear()
            raise
        for offset, data in content.pending:
            _put(content.kept, offset, data)
        content.pending.clear()

    def close(self) -> None:
        """Nothing is lost by that."""
