"""A proxy that refuses a client's settings, as RocketMQ does for want of rights: a status in place of settings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.rocketmq.grpc.producer import GrpcProducer
from spanbridge.rocketmq.grpc.stubs import definition

from .consuming import consuming
from .fake_proxy import FakeProxy
from .test_peers import sink_to

pytestmark = pytest.mark.anyio

WORDS = "User:gw has no permission to access {} from 127.0.0.1, no matched policies."


def refusal(resource: str) -> Any:
    return definition.Status(code=definition.Code.UNAUTHORIZED, message=WORDS.format(resource))


async def test_a_producers_probe_tells_it_until_the_right_is_given() -> None:
    async with FakeProxy() as proxy:
        proxy.refusal = refusal("Topic:t")
        async with sink_to(proxy.address, topics=("t",)) as sink:
            with pytest.raises(SinkMisconfigured, match="The account needs PUB on the topic") as caught:
                await sink.probe()
            assert caught.value.reason == "forbidden"
            proxy.refusal = None
            async with asyncio.timeout(60):
                while not await takes(sink):
                    await asyncio.sleep(0.05)


async def takes(sink: GrpcProducer) -> bool:
    try:
        await sink.probe()
    except SinkMisconfigured:
        return False
    return True


async def test_a_consumer_tells_it_and_goes_on_when_the_right_is_given() -> None:
    async with FakeProxy() as proxy:
        proxy.refusal = refusal("Group:g")
        async with consuming(proxy.address, "g", "t") as taker:
            await taker.fails_with("The account needs SUB on the consumer group")
            proxy.refusal = None
            await taker.until(lambda: "rocketmq.receive.up" in taker.recorder.names())
