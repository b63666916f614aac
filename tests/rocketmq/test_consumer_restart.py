"""RocketMQ is killed while a consumer holds messages: it says so, and nothing that RocketMQ had is lost."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import pytest

from spanbridge.ports import Link

from .consuming import consuming, sending

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]


@pytest.fixture
def anyio_backend() -> object:
    """Once, on the loop that production uses: a JVM's restart costs seconds."""
    return ("asyncio", {"use_uvloop": True})


async def test_kill(rocketmq_broker: Any) -> None:
    topic = rocketmq_broker.create_topic(None, queues=2)
    group = rocketmq_broker.create_group()
    endpoints = rocketmq_broker.endpoints
    options = {"request_timeout": 2.0, "heartbeat_interval": 1.0, "backoff_maximum": 1.0, "invisible": 15.0}
    async with consuming(endpoints, group, topic, **options) as taker:
        async with sending(endpoints, topic) as send:
            await send(*(b"%d" % n for n in range(50)))
        await taker.have(50)
        taker.source.ack(taker.deliveries[:25])
        await anyio.to_thread.run_sync(rocketmq_broker.kill)
        await taker.until(lambda: taker.source.status.link is Link.BACKOFF)
        assert taker.source.status.last_error
        await anyio.to_thread.run_sync(rocketmq_broker.start)
        await taker.until(lambda: taker.source.status.link is Link.UP)
        taker.automatic = True
        taker.source.ack(taker.deliveries)
        taker.acked.clear()
        async with sending(endpoints, topic) as send:
            await send(*(b"%d" % n for n in range(50, 100)))
        await taker.until(lambda: len(set(taker.bodies)) == 100)
        await taker.nothing_held()
        assert set(map(int, taker.bodies)) == set(range(100))
        assert sum(count for _, count, error in taker.acked if error is None) >= 50, "what came is acknowledged again"
