"""Asking about a consumer group, against scripted proxies: what refusals are called. Nothing is received."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from spanbridge.core.errors import SinkError
from spanbridge.rocketmq import ConsumerOptions, RocketmqOptions, create_inquiry
from spanbridge.rocketmq.grpc.inquiry import GroupAnswer, GroupInquiry
from tests.fakes import FakeReporter

from .fake_proxy import FakeProxy, status

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def asking(endpoints: str, **options: Any) -> AsyncIterator[GroupInquiry]:
    cluster = RocketmqOptions(endpoints=endpoints, **options)
    inquiry = create_inquiry(ConsumerOptions(cluster=cluster, group="g", topic="t"), FakeReporter())
    await inquiry.start()
    try:
        yield inquiry
    finally:
        await inquiry.close()


async def test_everything_is_asked_and_nothing_received() -> None:
    async with FakeProxy(queues=3, types=("FIFO",)) as proxy:
        proxy.fifo = True
        proxy.put(b"kept")
        async with asking(proxy.address) as inquiry:
            answer, topic = await inquiry.group(), await inquiry.topic()
            await inquiry.rights()
        assert answer == GroupAnswer(ordered=True, attempts=3)
        assert (topic.queues, topic.brokers, topic.types) == (3, ("broker-0",), {"FIFO"})
        assert proxy.count("QueryAssignment") == 1
        assert proxy.count("ReceiveMessage") == 0
        assert proxy.calls[-1][0] == "NotifyClientTermination"


async def test_rights_that_are_missing_are_told_in_the_words_of_the_proxy() -> None:
    async with FakeProxy() as proxy, asking(proxy.address) as inquiry:
        proxy.answers = lambda method, _: status("FORBIDDEN", "no SUB") if method == "QueryAssignment" else None
        await inquiry.group()
        await inquiry.topic()
        with pytest.raises(SinkError, match=r"no SUB.*with a downlink SUB") as caught:
            await inquiry.rights()
        assert caught.value.reason == "forbidden"


async def test_another_proxy_is_asked_where_one_does_not_answer() -> None:
    async with FakeProxy() as gone, FakeProxy() as proxy:
        gone.answers = lambda method, _: grpc.StatusCode.UNAVAILABLE if method == "QueryRoute" else None
        async with asking(f"{gone.address};{proxy.address}") as inquiry:
            assert (await inquiry.topic()).queues == 1


async def test_a_proxy_that_answers_no_settings() -> None:
    async with FakeProxy() as proxy:
        proxy.silent = True
        async with asking(proxy.address, request_timeout=0.3) as inquiry:
            with pytest.raises(SinkError, match="no answer in time"):
                await inquiry.group()
