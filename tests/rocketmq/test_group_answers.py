"""Answers to messages of a consumer group that meet a fault of ours."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from spanbridge.core.message import Message
from spanbridge.rocketmq.group_acks import GroupAcks
from spanbridge.rocketmq.group_answers import GroupAnswers
from spanbridge.rocketmq.held import Arrival, DeliveryAnswer, Held, ReceivedMessage
from spanbridge.rocketmq.options import ConsumerOptions, RocketmqOptions
from tests.fakes import FakeReporter

pytestmark = pytest.mark.anyio


class Acks(GroupAcks):
    async def _try(self, broker: str, batch: list[ReceivedMessage]) -> list[ReceivedMessage]:
        raise NotImplementedError


class Answers(GroupAnswers):
    """``hidden`` are the pauses that messages were nacked with."""

    hidden: tuple[float, ...] = ()

    async def _change(self, delivery: ReceivedMessage, invisible: float) -> None:
        self.hidden += (invisible,)

    async def _to_dead_letters(self, delivery: ReceivedMessage) -> None:
        raise KeyError("a topic that nobody knows")

    def _pause(self, attempt: int) -> float:
        return 7.0


async def test_a_message_that_a_fault_keeps_from_the_dead_letters_comes_again() -> None:
    source: Any = None
    held, reporter = Held(), FakeReporter()
    options = ConsumerOptions(cluster=RocketmqOptions(endpoints="127.0.0.1:1"), group="g", topic="t")
    acks = Acks(options, held, reporter, lambda *_: None, together=1)
    answers = Answers(options, held, acks, reporter)
    now = time.monotonic_ns()
    message = Message(topic="t", body=b"x", message_id="1")
    delivery = ReceivedMessage(message, Arrival(source, "broker", now, now + 60 * 10**9), "handle", 0)
    held.take(delivery)
    held.answer(delivery, DeliveryAnswer.REJECT)
    answers.conclude([delivery])
    async with asyncio.timeout(20):
        while answers.tasks:
            await asyncio.sleep(0)
    assert answers.hidden == (7.0,)
    assert (len(held), held.bytes) == (0, 0), "it is not in our hands any more"
    assert reporter.names() == ["rocketmq.background_faults"]
