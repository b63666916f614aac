"""The spool of a running gateway takes up what commands leave for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from spanbridge.app.clock import SystemClock
from spanbridge.app.inbox import InboxService
from spanbridge.core.events import Event
from spanbridge.core.message import Publish
from spanbridge.core.spooled import Spooled, encode
from spanbridge.core.spooled_json import to_json
from spanbridge.spool.errors import SpoolFull
from spanbridge.spool.inbox import Errand, SpoolInbox

pytestmark = pytest.mark.anyio


class Quick(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 1000)


class Parts:
    """A spill and dead letters that keep what they are asked, and a reporter. ``full`` says that there is no room."""

    def __init__(self) -> None:
        self.put_in: list[Spooled] = []
        self.asked: list[object] = []
        self.events: list[Event] = []
        self.full = False

    async def put(self, messages: Sequence[Spooled]) -> None:
        if self.full and self.put_in:
            raise SpoolFull("the spool holds as much as it may")
        assert all(map(encode, messages))
        self.put_in += messages

    async def give_back(self, reasons: Sequence[str], put: Any) -> tuple[int, int]:
        self.asked.append(tuple(reasons))
        await put([Spooled(Publish("d/a", b"late", expiry=5), reason="too_large", error="20 bytes")])
        return 1, 2

    async def remove_all(self) -> int:
        self.asked.append("purge")
        return 3

    def report(self, event: Event) -> None:
        self.events.append(event)

    def texts(self) -> list[str]:
        return [event.text() for event in self.events]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


class Taken:
    def __init__(self, path: Path) -> None:
        self.inbox, self.parts = SpoolInbox(path), Parts()
        parts: Any = self.parts
        self.service = InboxService(self.inbox, parts, parts, parts, Quick())

    async def __aenter__(self) -> Self:
        await self.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.service.stop()


def lines(count: int) -> list[dict[str, Any]]:
    return [to_json(Spooled(Publish(f"d/{number}", b"x", qos=1))) for number in range(count)]


async def test_messages_that_wait_at_the_start_and_later_ones_are_taken_in_order(tmp_path: Path) -> None:
    rig = Taken(tmp_path)
    rig.inbox.leave(lines(3000))
    async with rig:
        await until(lambda: len(rig.parts.put_in) == 3000)
        assert [one.publish.topic for one in rig.parts.put_in] == [f"d/{number}" for number in range(3000)]
        rig.inbox.leave(lines(1))
        await until(lambda: len(rig.parts.put_in) == 3001)
        await until(lambda: not list(rig.inbox.path.iterdir()))
    assert "3000 message(s)" in rig.parts.texts()[0]


async def test_dead_letters_are_sent_again_without_their_expiry(tmp_path: Path) -> None:
    async with Taken(tmp_path) as rig:
        rig.inbox.leave(Errand("replay", ("too_large",)))
        rig.inbox.leave(Errand("purge"))
        await until(lambda: rig.parts.asked == [("too_large",), "purge"])
        (again,) = rig.parts.put_in
        assert (again.publish.payload, again.publish.expiry, again.reason, again.error) == (b"late", None, "", "")
        await until(lambda: len(rig.parts.events) == 2)
    assert rig.parts.texts() == [
        "1 dead letter(s) are in the spool, and go to RocketMQ; 2 stay",
        "3 dead letter(s) were removed",
    ]


async def test_what_finds_no_room_waits_and_is_put_there_once(tmp_path: Path) -> None:
    async with Taken(tmp_path) as rig:
        rig.parts.full = True
        rig.inbox.leave(lines(3000))
        await until(lambda: len(rig.parts.events) > 3)
        assert {event.name for event in rig.parts.events} == {"spool.inbox.failures"}
        rig.parts.full = False
        await until(lambda: not list(rig.inbox.path.iterdir()))
        assert [one.publish.topic for one in rig.parts.put_in] == [f"d/{number}" for number in range(3000)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("1.jsonl", "{}\n"), ("1.jsonl", "nonsense\n"), ("1.json", "[]"), ("1.json", '{"do": "dance", "reasons": []}')],
)
async def test_what_cannot_be_understood_is_put_aside_in_a_line(tmp_path: Path, name: str, content: str) -> None:
    async with Taken(tmp_path) as rig:
        rig.inbox.path.mkdir(exist_ok=True)
        (rig.inbox.path / name).write_text(content)
        await until(lambda: bool(rig.parts.events))
        assert [path.name for path in rig.inbox.path.iterdir()] == [f"{name}.refused"]
        (text,) = rig.parts.texts()
        assert "\n" not in text
        assert f"{name} cannot be understood, and is called {name}.refused now" in text


def test_what_is_left_is_nobody_elses_to_read(tmp_path: Path) -> None:
    inbox = SpoolInbox(tmp_path)
    inbox.leave(lines(1))
    (file,) = inbox.path.iterdir()
    assert (inbox.path.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert json.loads(file.read_text())["topic"] == "d/0"


@pytest.mark.parametrize("field", [{"content_type": 5}, {"payload_format": 300}, {"topic": "x" * 70_000}])
async def test_a_message_that_no_spool_can_hold_is_put_aside_and_holds_up_nothing(
    tmp_path: Path, field: dict[str, Any]
) -> None:
    async with Taken(tmp_path) as rig:
        rig.inbox.leave([lines(1)[0] | field])
        rig.inbox.leave(lines(2)[1:])
        await until(lambda: [path.suffix for path in rig.inbox.path.iterdir()] == [".refused"])
        assert [one.publish.topic for one in rig.parts.put_in] == ["d/1"]
