"""A process that fills and drains a spool until it is killed. It tells on stdout what was acknowledged and done.

``python -m tests.spool.killed 200`` kills one so often at random moments, and says what it found.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spanbridge.core.spooled import Lost
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.store import Store, StoreLimits

LIMITS = StoreLimits(segment=20_000, total=1 << 30, reserve=0)


def body(number: int) -> bytes:
    return b"%d:" % number + bytes((number * 7 + at) % 251 for at in range(number % 300))


def child(path: str, seed: int) -> None:
    """Commit, read and mark by turns. A line: what is acknowledged, and what the watermark is asked to be."""
    draw = random.Random(seed)
    store = Store(RealDisk(Path(path)), LIMITS)
    cursor = store.cursor()
    mode = draw.choice(["fill", "drain", "both"])
    while True:
        if mode != "drain" or store.next - cursor.number < 50:
            first, count = store.next, draw.randint(1, 40)
            store.commit([(1, body(number)) for number in range(first, first + count)])
            sys.stdout.write(f"kept {store.next}\n")
        if mode != "fill":
            found = store.read(cursor, draw.randint(1, 60), 1 << 20)
            if found and draw.random() < 0.5:
                sys.stdout.write(f"done {cursor.number}\n")
                sys.stdout.flush()
                store.mark(cursor.number, tidy=draw.random() < 0.1)
        sys.stdout.flush()


def kill_once(path: Path, seed: int) -> tuple[int, int]:
    """Run a child on a directory, kill it, and check what is there. How many were acknowledged and found then.

    :raises AssertionError: something is missing, out of order or not what was written.
    """
    draw = random.Random(seed)
    command = [sys.executable, "-m", "tests.spool.killed", "child", str(path), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        line = process.stdout.readline()  # it is at work
        time.sleep(draw.random() * 0.25)
        process.kill()
        lines = [line, *process.stdout.read().splitlines(keepends=True)]
    whole = [text.split() for text in lines if text.endswith("\n")]
    kept = max((int(number) for word, number in whole if word == "kept"), default=0)
    done = max((int(number) for word, number in whole if word == "done"), default=0)
    store = Store(RealDisk(path), LIMITS)
    try:
        assert store.next >= kept, f"acknowledged to {kept}, found to {store.next}"
        assert done == 0 or store.watermark <= max(done, kept)
        expected = store.watermark
        cursor = store.cursor()
        while found := store.read(cursor, 500, 1 << 20):
            for one in found:
                assert not isinstance(one, Lost), one
                assert (one.number, one.body) == (expected, body(expected))
                expected += 1
        assert expected == store.next
        return kept, store.next - store.watermark
    finally:
        store.close()


def main(times: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = 0
        for seed in range(times):
            _, left = kill_once(Path(directory), seed)
            found += left
        sys.stdout.write(f"killed {times} times: nothing acknowledged was lost; {found} records read back\n")


if __name__ == "__main__":
    if sys.argv[1] == "child":
        child(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]))
