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
from spanbridge.core.spooled_json import to_json
from spanbridge.spool.disk import RealDisk
from spanbridge.spool.inbox import Errand, SpoolInbox
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
    assert "removed 15 message(s)" in spool("purge", "--yes", "--path", str(directory))
    file = tmp_path / "messages.jsonl"
    file.write_text(exported)
    assert "15 message(s) are to be sent again" in spool("replay", str(file), "--path", str(directory))
    left = left_for_the_gateway(directory)
    again = [to_json(one) for one in left]
    for one in lines:
        del one["number"]
    assert again == lines


def left_for_the_gateway(directory: Path) -> list[Spooled]:
    inbox = SpoolInbox(directory)
    (name,) = inbox.waiting()
    assert inbox.errand(name) is None
    found, end = inbox.messages(name, 0, 1000, 1 << 20)
    assert inbox.messages(name, end, 1000, 1 << 20) == ([], end)
    return found


@pytest.mark.parametrize(
    "line", ["{}", "[]", "null", "1", '{"topic": 1}', '{"topic": "a", "payload": "x", "trace_id": "00"}']
)
def test_what_is_no_message_is_refused_in_a_line(directory: Path, tmp_path: Path, line: str) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text(line + "\n")
    assert "is no message" in spool("replay", str(file), "--path", str(directory), code=1)


def test_purging_asks_for_more_than_the_command(directory: Path) -> None:
    assert "15 message(s) would be lost" in spool("purge", "--path", str(directory), code=2)


@pytest.fixture
def rejected(directory: Path) -> Path:
    """The same spool, with dead letters of two reasons."""
    (directory / "rejected").mkdir()
    store = Store(RealDisk(directory / "rejected"), LIMITS)
    for number, reason in enumerate(["too_large", "loop", "too_large"]):
        publish = Publish(f"devices/{number}", b"x" * 20, qos=1, received_ns=1_700_000_000_000_000_000)
        letter = Spooled(publish, publish.received_ns + 10**9, reason=reason, error=f"cause\n{number}")
        store.commit([(form.DEAD_LETTER, form.encode(letter))])
    store.close()
    return directory


def test_dead_letters_are_listed_with_reason_and_error(rejected: Path) -> None:
    rows = json.loads(spool("ls", "--rejected", "--json", "--path", str(rejected)))
    assert [(row["topic"], row["reason"], row["rejected"]) for row in rows] == [
        ("devices/0", "too_large", "2023-11-14T22:13:21+00:00"),
        ("devices/1", "loop", "2023-11-14T22:13:21+00:00"),
        ("devices/2", "too_large", "2023-11-14T22:13:21+00:00"),
    ]
    shown = spool("ls", "--rejected", "--path", str(rejected)).splitlines()
    assert shown[1].endswith("loop  'devices/1'  20 bytes  'cause\\n1'")
    assert shown[-1].startswith("3 dead letter(s)")
    found = json.loads(spool("stats", "--rejected", "--json", "--path", str(rejected)))
    assert (found["messages"], found["reasons"]) == (3, {"too_large": 2, "loop": 1})
    assert "reasons: too_large 2, loop 1" in spool("stats", "--rejected", "--path", str(rejected))
    assert "3 message(s) can be read" in spool("verify", "--rejected", "--path", str(rejected))
    exported = [json.loads(line) for line in spool("export", "--rejected", "--path", str(rejected)).splitlines()]
    assert [(line["reason"], line["error"]) for line in exported][1] == ("loop", "cause\n1")
    one = spool("export", "--rejected", "--reason", "loop", "--path", str(rejected)).splitlines()
    assert [json.loads(line)["number"] for line in one] == [1]


@pytest.mark.parametrize("used", [True, False])
def test_dead_letters_are_sent_again_by_the_gateway(rejected: Path, used: bool) -> None:
    store = Store(RealDisk(rejected / "rejected"), LIMITS) if used else None
    text = spool("replay", "--rejected", "--reason", "too_large", "--path", str(rejected))
    assert text.startswith("2 dead letter(s) are to be sent again")
    inbox = SpoolInbox(rejected)
    (name,) = inbox.waiting()
    assert inbox.errand(name) == Errand("replay", ("too_large",))
    if store is not None:
        store.close()


def test_dead_letters_of_a_stopped_gateway_are_removed_at_once(rejected: Path) -> None:
    assert "3 dead letter(s) would be lost" in spool("purge", "--rejected", "--path", str(rejected), code=2)
    assert "removed 3 dead letter(s)" in spool("purge", "--rejected", "--yes", "--path", str(rejected))
    assert "0 dead letter(s)" in spool("ls", "--rejected", "--path", str(rejected))
    assert "15 message(s)" in spool("ls", "--path", str(rejected))


def test_a_gateway_that_runs_is_asked_to_remove_its_dead_letters(rejected: Path) -> None:
    store = Store(RealDisk(rejected / "rejected"), LIMITS)
    assert "within seconds" in spool("purge", "--rejected", "--yes", "--path", str(rejected))
    inbox = SpoolInbox(rejected)
    assert [inbox.errand(name) for name in inbox.waiting()] == [Errand("purge")]
    store.close()


def test_a_spool_without_dead_letters_says_so(directory: Path) -> None:
    assert "holds no dead letters" in spool("ls", "--rejected", "--path", str(directory), code=1)


def test_what_is_to_be_sent_again_has_to_be_named(directory: Path) -> None:
    assert "give a FILE, or --rejected" in spool("replay", "--path", str(directory), code=2)
    assert "--reason goes with --rejected" in spool("replay", "x", "--reason", "y", "--path", str(directory), code=2)
