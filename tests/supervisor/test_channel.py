"""What supervisor and worker say to each other."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import anyio
import pytest

from spanbridge.core.errors import SpanbridgeError
from spanbridge.supervisor.channel import Channel, ChannelClosed, ChannelError, Message, frame, receive

pytestmark = pytest.mark.anyio


async def nothing(_: Message) -> None:
    """There is nothing to answer."""


async def pair(answering: Any) -> tuple[Channel, Channel, list[Message]]:
    ours, theirs = socket.socketpair()
    noted: list[Message] = []
    first, second = Channel(nothing, noted.append), Channel(answering, noted.append)
    await first.open(ours)
    await second.open(theirs)
    return first, second, noted


async def test_questions_have_answers_in_any_order() -> None:
    turn = asyncio.Event()

    async def answering(request: Message) -> Any:
        if request["ask"] == "slow":
            await turn.wait()
        return {"is": request["ask"], "text": "ü" * 100_000}

    first, second, _ = await pair(answering)
    slow = asyncio.create_task(first.ask("slow", 30))
    assert (await first.ask("quick", 30))["is"] == "quick"
    turn.set()
    assert (await slow)["text"] == "ü" * 100_000
    await first.close()
    await second.close()


async def test_what_goes_wrong_is_told_to_who_asked() -> None:
    async def answering(request: Message) -> Any:
        if request["ask"] == "later":
            await asyncio.sleep(3600)
        raise SpanbridgeError("one is made now", reason="busy") if request["ask"] == "known" else ValueError("oops")

    first, second, _ = await pair(answering)
    with pytest.raises(ChannelError, match="one is made now") as caught:
        await first.ask("known", 30)
    assert caught.value.reason == "busy"
    with pytest.raises(ChannelError, match="internal error: ValueError: oops"):
        await first.ask("unknown", 30)
    with pytest.raises(ChannelError, match="no answer within"):
        await first.ask("later", 0.01)
    await first.close()
    await second.close()


async def test_the_end_of_one_is_known_to_the_other() -> None:
    first, second, noted = await pair(nothing)
    second.note({"last": "words"})
    await second.close()
    with anyio.fail_after(30):
        await first.gone.wait()
    assert noted == [{"last": "words"}]
    with pytest.raises(ChannelClosed):
        await first.ask("anything", 30)
    first.note({"nobody": "hears"})
    await first.close()
    await first.close()


async def test_a_question_under_way_ends_with_the_other_side() -> None:
    async def answering(_: Message) -> Any:
        await asyncio.sleep(3600)

    first, second, _ = await pair(answering)
    asked = asyncio.create_task(first.ask("anything", 30))
    await anyio.sleep(0.01)
    await second.close()
    with pytest.raises(ChannelClosed):
        await asked
    await first.close()


def test_the_first_message_is_read_without_a_loop_and_nothing_beyond_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frame({"text": "x" * 50_000}) + frame({"next": 1}))
        assert receive(theirs) == {"text": "x" * 50_000}
        assert receive(theirs) == {"next": 1}
        ours.close()
        with pytest.raises(ChannelClosed):
            receive(theirs)


async def test_a_fault_with_what_was_said_is_an_end_and_no_silence() -> None:
    """Who waits for the other side's end would wait for ever."""
    ours, theirs = socket.socketpair()

    def fail(_: Message) -> None:
        raise RuntimeError("oops")

    first, second = Channel(nothing, fail), Channel(nothing, lambda _: None)
    await first.open(ours)
    await second.open(theirs)
    second.note({"running": True})
    await second.close()
    with anyio.fail_after(60):
        await first.gone.wait()
    await first.close()
