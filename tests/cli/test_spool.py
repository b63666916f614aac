"""``spanbridge spool`` on a spool in use and on one of a stopped gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spanbridge.cli.spool import build
from spanbridge.core import spooled as form
from spanbridge.core.message import Publish
from spanbridge.core.spooled import Spooled, TraceIds
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.store import Store, StoreLimits

LIMITS = StoreLimits(segment=4_000, total=1 << 20, reserve=0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A spool of 20 messages, of which 5 are done."""
    path = tmp_path / "spool"
    path.mkdir()
    store = Store(RealDisk(path), LIMITS)
    for number in range(20):
        publish = Publish(f"devices/{number}", b"\xff" if number == 7 else b"%d" % number + b" " * 500, qos=1)
        publish.received_ns = 1_700_000_000_000_000_000
        publish.user_properties = [("unit", "C")]
        trace = TraceIds(bytes(15) + b"\x01", bytes(7) + b"\x02", bytes(7) + b"\x03")
        store.commit([(form.MESSAGE, form.encode(Spooled(publish, publish.received_ns, trace)))])
    store.mark(5)
    store.close()
    return path


def spool(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(build(), list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_it_is_told_how_much_there_is(directory: Path) -> None:
    found = json.loads(spool("stats", "--path", str(directory), "--json"))
    assert (found["messages"], found["first"], found["next"]) == (15, 5, 20)
    assert found["oldest_received"] == "2023-11-14T22:13:20+00:00"
    rows = json.loads(spool("ls", "--path", str(directory), "--json"))
    assert sum(row["undone"] for row in rows) == 15
    assert "15 message(s)" in spool("ls", "--path", str(directory))


def test_a_spool_in_use_can_be_read_and_not_be_changed(directory: Path) -> None:
    store = Store(RealDisk(directory), LIMITS)
    assert "15 message(s) can be read, 0 cannot" in spool("verify", "--path", str(directory))
    assert "another gateway uses this spool" in spool("purge", "--yes", "--path", str(directory), code=1)
    store.close()


def test_what_is_spoiled_is_told_with_its_numbers(directory: Path) -> None:
    segment = sorted(directory.glob("*.seg"))[1]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    found = json.loads(spool("verify", "--path", str(directory), "--json", code=1))
    assert (found["readable"], found["lost"]) == (14, 1)


def test_exported_messages_are_sent_again_as_they_were(directory: Path, tmp_path: Path) -> None:
    exported = spool("export", "--path", str(directory))
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [line["number"] for line in lines] == list(range(5, 20))
    assert lines[2]["payload_base64"] == "/w=="
    assert lines[3]["user_properties"] == [["unit", "C"]]
    file = tmp_path / "messages.jsonl"
    file.write_text(exported)
    assert "removed 15 message(s)" in spool("purge", "--yes", "--path", str(directory))
    assert "15 message(s) are in the spool" in spool("replay", str(file), "--path", str(directory))
    again = [json.loads(line) for line in spool("export", "--path", str(directory)).splitlines()]
    for one in [*lines, *again]:
        del one["number"]
    assert again == lines


@pytest.mark.parametrize(
    "line", ["{}", "[]", "null", "1", '{"topic": 1}', '{"topic": "a", "payload": "x", "trace_id": "00"}']
)
def test_what_is_no_message_is_refused_in_a_line(directory: Path, tmp_path: Path, line: str) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text(line + "\n")
    assert "is no message" in spool("replay", str(file), "--path", str(directory), code=1)


def test_purging_asks_for_more_than_the_command(directory: Path) -> None:
    assert "15 message(s) would be lost" in spool("purge", "--path", str(directory), code=2)
