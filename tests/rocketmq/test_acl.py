"""RocketMQ that asks for keys: the right ones work, wrong ones are a configuration error that names what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from spanbridge.core.errors import SinkMisconfigured
from spanbridge.core.events import Event
from spanbridge.core.message import Destination
from spanbridge.devstack import Devstack, RocketmqBroker
from spanbridge.devstack.topics import ask
from spanbridge.ports import Link
from spanbridge.rocketmq import RocketmqOptions
from spanbridge.rocketmq.grpc.producer import GrpcProducer
from spanbridge.rocketmq.remoting.admin import max_offset

from .consuming import consuming
from .test_broker import sink_to

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]
ACCESS, SECRET = "gateway", "correct-horse-battery-staple"


@pytest.fixture
def anyio_backend() -> object:
    """Once, on the loop that production uses: nothing here depends on it."""
    return ("asyncio", {"use_uvloop": True})


WRONG: list[dict[str, str]] = [
    {"access_key": ACCESS, "secret_key": "tr0ub4dor"},
    {"access_key": "nobody", "secret_key": "tr0ub4dor"},
    {},
]


@pytest.fixture(scope="module")
def secured() -> Iterator[RocketmqBroker]:
    with Devstack.up(mqtt_v5=False, mqtt_v311=False, credentials=(ACCESS, SECRET), authorization=True) as stack:
        yield stack.rocketmq


class Recorder:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def report(self, event: Event) -> None:
        self.texts.append(f"{event!r} {event.text()}")


async def send(broker: RocketmqBroker, topic: str, recorder: Recorder, **keys: str) -> GrpcProducer:
    sink = GrpcProducer(RocketmqOptions(endpoints=broker.endpoints, topics=(topic,), **keys), recorder)
    try:
        await sink.start()
        with anyio.fail_after(20):
            head = sink.head(Destination(topic))
            await sink.send(topic, head.partition, [head.encode(b"x", "", (), time.time_ns())])
            await sink.probe()
            assert sink.status.link is Link.UP
    finally:
        await sink.close()
    return sink


async def test_keys_decide(secured: RocketmqBroker) -> None:
    topic = secured.create_topic(queues=1)
    await send(secured, topic, Recorder(), access_key=ACCESS, secret_key=SECRET)
    assert ask(secured.broker_port, max_offset(topic, 0), keys=secured.broker_keys) == 1
    for keys in WRONG:
        recorder = Recorder()
        with pytest.raises(SinkMisconfigured) as caught:
            await send(secured, topic, recorder, **keys)
        assert caught.value.reason == "unauthorized"
        assert "tr0ub4dor" not in f"{caught.value!r} {caught.value} {recorder.texts}"
    assert ask(secured.broker_port, max_offset(topic, 0), keys=secured.broker_keys) == 1


async def test_keys_decide_at_a_broker(secured: RocketmqBroker) -> None:
    await keys_decide_at(secured)


async def keys_decide_at(broker: RocketmqBroker) -> None:
    topic, group = broker.create_topic(queues=1), broker.create_group()
    options: dict[str, Any] = {"endpoints": broker.namesrv, "protocol": "remoting", "request_timeout": 20.0}
    right = {"access_key": ACCESS, "secret_key": SECRET}
    async with consuming(group=group, topic=topic, **options, **right) as taker:
        async with sink_to(**options, **right) as sink:
            head = sink.head(Destination(topic))
            for size in (1, 3):
                await sink.send(topic, head.partition, [head.encode(b"x", "", (), time.time_ns())] * size)
            await sink.probe()
        taker.source.ack(await taker.have(4))
        await taker.nothing_held()

    for keys in WRONG:
        async with sink_to(**options, **keys) as sink:
            with pytest.raises(SinkMisconfigured) as caught:
                await sink.send(topic, head.partition, [head.encode(b"x", "", (), time.time_ns())])
        assert caught.value.reason == "unauthorized"
        assert "tr0ub4dor" not in f"{caught.value!r} {caught.value}"
        async with consuming(group=group, topic=topic, **options, **keys) as taker:
            await taker.fails_with("Check the access key")
    assert ask(broker.broker_port, max_offset(topic, 0), keys=broker.broker_keys) == 4
