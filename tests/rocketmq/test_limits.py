"""What a real RocketMQ does with content at the edges, and with limits lower than the ones we know."""

from __future__ import annotations

import time
from typing import Any

import anyio.to_thread
import pytest

from spanbridge.core.errors import SinkRejected
from spanbridge.core.message import Destination
from spanbridge.devstack.topics import ask
from spanbridge.rocketmq.remoting.call import Call

from .reading import Reader
from .test_broker import sink_to

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]
UPDATE_BROKER_CONFIG = 25
"""RequestCode"""


@pytest.fixture
def anyio_backend() -> object:
    """Once, on the loop that production uses: nothing here depends on it."""
    return ("asyncio", {"use_uvloop": True})


async def test_legal_characters_arrive_and_empty_values_do_not(devstack: Any) -> None:
    topic, endpoints = devstack.topic(queues=1), devstack.rocketmq.endpoints
    properties = [
        (" ", "blank name"), ("blank value", " "), ("a=b:c|d", "x=y|z"), ("astral \U0001f600", "\U0001f600"),
        ("\u2028", "\u2028\xa0\ufeff\uffff"), ("keys", "v"), ("n" * 4000, "v"), ("long", "v" * 8000), ("empty", ""),
    ]  # fmt: skip
    async with sink_to(endpoints) as sink:
        head = sink.head(Destination(topic, tag=" a ", keys=("k", "k")))
        await sink.send(topic, head.partition, [head.encode(b"x", "", properties, time.time_ns())])
    (message,) = await Reader(endpoints, topic, devstack.group()).read(1)
    assert dict(message.user_properties) == {name: value for name, value in properties if value}
    assert (message.system_properties.tag, list(message.system_properties.keys)) == (" a ", ["k", "k"])


async def test_limits_lower_than_known_say_what_to_shed(rocketmq_broker: Any) -> None:
    topic = rocketmq_broker.create_topic(queues=1)
    change = Call(
        what="change its configuration", code=UPDATE_BROKER_CONFIG, body=b"maxMessageSize=2000\n", read=lambda _: None
    )
    await anyio.to_thread.run_sync(ask, rocketmq_broker.broker_port, change)
    async with sink_to(rocketmq_broker.endpoints) as sink:
        head = sink.head(Destination(topic))
        with pytest.raises(SinkRejected, match="body length limit 2000B") as caught:
            await sink.send(topic, -1, [head.encode(b"x" * 3000, "", (), time.time_ns())])
        assert caught.value.reason == "message_body_too_large"
        await sink.send(topic, -1, [head.encode(b"x" * 100, "", [("n", "v" * 15_000)], time.time_ns())])
