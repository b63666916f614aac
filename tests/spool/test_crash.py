"""Crash consistency: histories on a simulated disk, against a model of what must be there afterwards."""

from __future__ import annotations

import errno

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spanbridge.core.spooled import Lost
from spanbridge.spool.errors import SpoolFault
from spanbridge.spool.store import Store, StoreLimits
from tests.drawing import examples

from .simulated import SimulatedDisk

pytestmark = pytest.mark.timeout(900)
"""Of a machine that does other things as well."""

LIMITS = StoreLimits(segment=700, total=1 << 20, reserve=0)

step = st.one_of(
    st.tuples(st.just("commit"), st.lists(st.integers(0, 200), min_size=1, max_size=6)),
    st.tuples(st.just("commit"), st.lists(st.integers(0, 40), min_size=1, max_size=3)),
    st.tuples(st.just("read"), st.integers(1, 12)),
    st.tuples(st.just("done"), st.integers(0, 12)),
    st.tuples(st.just("mark"), st.booleans()),
    st.tuples(st.just("crash"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(
        st.just("fail"), st.sampled_from(["sync", "write", "create", "sync_directory", "unlink", "read", "open"])
    ),
    st.tuples(st.just("full"), st.integers(0, 300)),
    st.tuples(st.just("space"), st.none()),
)

UNSURE_MARK: list[tuple[str, object]] = [("fail", "sync"), ("mark", False), ("restart", None)]
"""The file system shows a watermark that is not on the disk."""


class Model:
    """What was acknowledged, what was given out and what was done, beside the store that is tested."""

    def __init__(self, seed: int) -> None:
        self.disk = SimulatedDisk(seed)
        self.disk.short = bool(seed % 2)
        self.acknowledged: dict[int, bytes] = {}
        self.attempted: dict[int, set[bytes]] = {}
        self.given: set[int] = set()
        self.done = 0
        self.serial = 0
        self.open()

    def open(self) -> None:
        self.store = Store(self.disk, LIMITS, salt=lambda: self.disk.random.getrandbits(32))
        self.cursor = self.store.cursor()
        self.last = self.cursor.number - 1
        assert self.store.watermark <= self.done, "the watermark went past what was done"
        self.done = self.store.watermark
        missing = [number for number in self.acknowledged if number >= self.store.next]
        assert not missing, f"acknowledged and gone: {missing}"

    def commit(self, sizes: list[int]) -> None:
        batch = []
        for size in sizes:
            self.serial += 1
            batch.append((1 + self.serial % 3, b"%d:" % self.serial + b"\xc5" * size))
        begin = self.store.next
        for offset, (_, body) in enumerate(batch):
            self.attempted.setdefault(begin + offset, set()).add(body)
        try:
            first = self.store.commit(batch)
        except SpoolFault:
            return
        assert first == begin
        for offset, (_, body) in enumerate(batch):
            self.acknowledged[first + offset] = body

    def read(self, count: int) -> None:
        try:
            found = self.store.read(self.cursor, count, 1 << 20)
        except SpoolFault:
            return
        for one in found:
            if isinstance(one, Lost):  # of a commit that nobody was told of, the disk kept what came later in it
                assert one.first == self.last + 1
                assert not self.acknowledged.keys() & set(range(*one))
                self.last = one.end - 1
                continue
            assert one.number == self.last + 1, "out of order, or left out"
            self.last = one.number
            expected = self.acknowledged.get(one.number)
            self.given.add(one.number)
            if expected is None:  # it was written, and the crash came before anybody knew
                assert one.body in self.attempted[one.number]
            else:
                assert one.body == expected, "another record than the one that was acknowledged"

    def finish(self, count: int) -> None:
        self.done = max(self.done, min(self.done + count, self.last + 1))

    def mark(self, *, tidy: bool) -> None:
        try:
            self.store.mark(self.done, tidy=tidy)
        except SpoolFault:
            return

    def crash(self) -> None:
        self.disk.crash()
        self.disk.capacity = 1 << 30
        self.open()

    def check_all(self) -> None:
        """Everything that was acknowledged and is not done comes out, in order."""
        self.disk.fails.clear()
        self.cursor = self.store.cursor()
        self.last = self.cursor.number - 1
        self.given.clear()
        while self.cursor.number < self.store.next:
            self.read(7)
        assert {number for number in self.acknowledged if number >= self.store.watermark} <= self.given


def play(model: Model, name: str, value: object) -> None:
    match name, value:
        case "commit", list():
            model.commit(value)
        case "read", int():
            model.read(value)
        case "done", int():
            model.finish(value)
        case "mark", bool():
            model.mark(tidy=value)
        case "crash", _:
            model.crash()
        case "restart", _:
            model.disk.fails.clear()
            model.store.close()
            model.open()
        case "fail", str():
            model.disk.fails[value] = [errno.EIO]
        case "full", int():
            model.disk.capacity = model.disk.used() + value
        case "space", _:
            model.disk.capacity = 1 << 30
        case _:
            raise AssertionError(name)


@settings(
    max_examples=examples(1000), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(seed=st.integers(0, 1 << 32), history=st.lists(step, max_size=30))
@example(seed=0, history=[("commit", [0]), ("crash", None), ("read", 1), ("done", 1), *UNSURE_MARK])
@example(
    seed=0,
    history=[
        ("commit", [0]),
        ("crash", None),
        ("read", 1),
        ("done", 1),
        *UNSURE_MARK[:2],
        ("commit", [0]),
        ("restart", None),
    ],
)
def test_what_was_acknowledged_is_there_after_any_history(seed: int, history: list[tuple[str, object]]) -> None:
    model = Model(seed)
    for name, value in history:
        play(model, name, value)
    model.check_all()
    model.crash()
    model.check_all()


@settings(max_examples=examples(200), deadline=None)
@given(
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=25),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(0, 7)), max_size=12),
)
def test_spoiled_records_are_passed_over_and_counted(sizes: list[int], flips: list[tuple[int, int, int]]) -> None:
    disk = SimulatedDisk()
    store = Store(disk, StoreLimits(segment=500, total=1 << 20, reserve=0), salt=lambda: 7)
    bodies = [b"%d:" % number + b"\xc5\x01" * size for number, size in enumerate(sizes)]
    for body in bodies:
        store.commit([(1, body)])
    names = sorted(name for name in disk.files if name.endswith(".seg"))
    for which, at, bit in flips:
        name = names[which % len(names)]
        disk.flip(name, at % len(disk.files[name].now), bit)
    cursor = store.cursor()
    expected = 0
    while found := store.read(cursor, 5, 1 << 20):
        for one in found:
            if isinstance(one, Lost):
                assert one.first == expected
                assert one.end > one.first
                expected = one.end
            else:
                assert one.number == expected
                assert one.body == bodies[one.number]
                expected += 1
    assert expected == len(bodies)
