"""Logging never blocks and never kills, whatever becomes of standard error."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from spanbridge.telemetry.log.foreign import Foreign
from spanbridge.telemetry.log.writer import LineWriter

GATEWAY = """
import logging, os, sys
from spanbridge.telemetry import Telemetry, TelemetrySettings

Telemetry(TelemetrySettings(log_format="json"), environ={})
log = logging.getLogger("spanbridge.test")
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def lines_of(reading: int, last: bytes) -> list[bytes]:
    data = b""
    while last not in data:
        data += os.read(reading, 65536)
    return data.splitlines()


def test_a_pipe_that_nobody_reads_takes_no_time_and_says_later_what_was_lost(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = LineWriter(writing, lambda count: f"{count} dropped\n", capacity=100_000)
    # The thread may take lines to the pipe while these come: then some later ones find room again.
    kept = [n for n in range(1000) if writer.write(f"line {n:06d} {'x' * 990}\n")]
    taken = len(kept)
    assert not writer.flush(0.01)
    assert 50 <= taken < 400
    assert writer.dropped == 1000 - taken
    found = lines_of(reading, b"dropped\n")
    assert [line[:11] for line in found[:-1]] == [f"line {n:06d}".encode() for n in kept]
    assert found[-1] == f"{1000 - taken} dropped".encode()
    assert writer.write("after\n")
    assert lines_of(reading, b"after\n") == [b"after"]


def test_a_reader_that_left_ends_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    writer = LineWriter(writing, str)
    assert writer.write("lost\n")
    assert writer.flush(5)
    assert writer.dropped == 1


def test_a_pipe_that_somebody_made_non_blocking(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    writer = LineWriter(writing, str)
    text = "".join(f"{n}\n" for n in range(50_000))
    assert writer.write(text)
    assert lines_of(reading, b"49999\n") == text.encode().splitlines()


def test_the_process_goes_on_and_ends_with_a_full_standard_error() -> None:
    code = f"{GATEWAY}\nfor n in range(5000): log.warning('x' * 500)\nprint('went on', flush=True)"
    reading, writing = os.pipe()
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=-1, stderr=writing, timeout=60, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, done.stdout) == (0, b"went on\n")


def test_what_was_logged_last_is_written_before_the_process_ends() -> None:
    code = f"{GATEWAY}\nfor n in range(500): log.warning('%d', n)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == [str(n) for n in range(500)]


@pytest.mark.parametrize("redirections", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_error_is_fine(redirections: str, tmp_path: object) -> None:
    code = f"""{GATEWAY}
opened = open({str(tmp_path)!r} + "/file", "wb", buffering=0)
assert opened.fileno() > 2, opened.fileno()
log.error("nobody sees this")
os.write(2, b"a library's own line")
opened.write(b"only this")
"""
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, code]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    with open(f"{tmp_path}/file", "rb") as written:
        assert written.read() == b"only this"


def record(name: str, message: str, *args: object, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error is not None else None
    return logging.LogRecord(name, logging.ERROR, "", 0, message, args, info)


def test_other_libraries_have_one_line_a_minute_of_each_kind() -> None:
    now = time.monotonic()
    foreign = Foreign(lambda: now)

    def shown(name: str, number: int) -> str | None:
        found = foreign.shown(record(name, "answer %d", number, error=ValueError("bad bytes")))
        return found and logging.Formatter().format(found)

    assert shown("grpc._common", 1) == "answer 1: ValueError: bad bytes"
    assert [shown("grpc._common", n) for n in range(2, 9)] == [None] * 7
    assert shown("grpc._cython", 9) == "answer 9: ValueError: bad bytes"
    now += 60
    assert shown("grpc._common", 10) == "answer 10: ValueError: bad bytes (7 more like this)"
    assert foreign.shown(ours := record("spanbridge.x", "a")) is ours
    assert foreign.shown(ours) is ours
