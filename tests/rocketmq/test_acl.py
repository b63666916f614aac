"""RocketMQ that asks for keys: the right ones work, wrong ones are a configuration error that names what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator

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

pytestmark = [pytest.mark.anyio, pytest.mark.brokers]
ACCESS, SECRET = "gateway", "correct-horse-battery-staple"


@pytest.fixture
def anyio_backend() -> object:
    """Once, on the loop that production uses: nothing here depends on it."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="module")
def secured() -> Iterator[RocketmqBroker]:
    with Devstack.up(mqtt_v5=False, mqtt_v311=False, credentials=(ACCESS, SECRET)) as stack:
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
    assert ask(secured.broker_port, max_offset(topic, 0)) == 1

    wrong: list[dict[str, str]] = [
        {"access_key": ACCESS, "secret_key": "tr0ub4dor"},
        {"access_key": "nobody", "secret_key": "tr0ub4dor"},
        {},
    ]
    for keys in wrong:
        recorder = Recorder()
        with pytest.raises(SinkMisconfigured) as caught:
            await send(secured, topic, recorder, **keys)
        assert caught.value.reason == "unauthorized"
        assert "tr0ub4dor" not in f"{caught.value!r} {caught.value} {recorder.texts}"
    assert ask(secured.broker_port, max_offset(topic, 0)) == 1
