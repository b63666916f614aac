"""aiomqtt, which sits on paho: its publishes, its loop over messages, and no span twice."""

from __future__ import annotations

from typing import Any

import aiomqtt
import anyio
import anyio.lowlevel
import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from spanbridge_instrumentation import process
from spanbridge_instrumentation.paho import PahoInstrumentor

pytestmark = pytest.mark.anyio
CONSUMED = "messaging.client.consumed.messages"


def client_of(stack: Any, version: str = "5") -> aiomqtt.Client:
    broker = stack.mqtt_v5 if version == "5" else stack.mqtt_v311
    protocol = aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311
    return aiomqtt.Client(broker.host, broker.port, protocol=protocol, identifier=stack.unique())


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_loop_over_messages(
    instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str, version: str
) -> None:
    instrument(v311_carrier="topic")
    async with client_of(mqtt_devstack, version) as client:
        await client.subscribe("tests/+/#", qos=1)
        with recorded.tracer.start_as_current_span("device") as device:
            await client.publish(f"{topic}/a", b"x", qos=1)
            await client.publish(f"{topic}/b", b"y", qos=0)
        with anyio.fail_after(60):
            number = 0
            async for message in client.messages:
                assert str(message.topic) == f"{topic}/{'ab'[number]}"
                with process(message) as span:
                    assert trace.get_current_span() is span
                    await anyio.lowlevel.checkpoint()
                    await client.publish(f"other/{topic}", b"inside", qos=1)
                number += 1
                if number == 2:
                    break
    sends, processes = recorded.sends(4), recorded.processes(2)
    assert len(sends) == 4
    assert len(processes) == 2
    by_name = {span.attributes["messaging.destination.name"]: span for span in sends}
    for span in processes:
        assert span.name == "process tests/+/#"
        assert span.parent.span_id == by_name[span.attributes["messaging.destination.name"]].context.span_id
    first = [span for span in sends if span.parent.span_id == device.get_span_context().span_id]
    inside = [span for span in sends if span not in first]
    assert {span.parent.span_id for span in inside} == {span.context.span_id for span in processes}
    assert {span.status.status_code for span in recorded.spans()} == {StatusCode.UNSET}
    assert recorded.total(CONSUMED, messaging_operation_name="receive") == 2
    assert recorded.total(CONSUMED) == 2
    assert recorded.total("messaging.process.duration") == 2
    assert recorded.total("messaging.client.sent.messages") == 4


async def test_a_batch_has_a_link_to_each_message_and_no_parent(
    instrumented: Any, mqtt_devstack: Any, topic: str
) -> None:
    batch: list[aiomqtt.Message] = []
    async with client_of(mqtt_devstack) as client:
        await client.subscribe(f"{topic}/#", qos=1)
        for number in range(3):
            await client.publish(f"{topic}/{number}", b"x", qos=1)
        with anyio.fail_after(60):
            async for message in client.messages:
                batch.append(message)
                if len(batch) == 3:
                    break
        async with process(batch):
            for message in batch:
                with process(message):
                    pass
    sends = instrumented.sends(3)
    *singles, together = instrumented.processes(4)
    assert together.parent is None
    assert {link.context.span_id for link in together.links} == {span.context.span_id for span in sends}
    assert {link.attributes["messaging.destination.name"] for link in together.links} == {
        f"{topic}/{number}" for number in range(3)
    }
    assert together.attributes["messaging.batch.message_count"] == 3
    assert "messaging.destination.name" not in together.attributes
    assert {span.parent.span_id for span in singles} == {span.context.span_id for span in sends}
    assert all(span.links[-1].context.span_id == together.context.span_id for span in singles)


async def test_errors_in_the_loop(instrumented: Any, mqtt_devstack: Any, topic: str) -> None:
    async with client_of(mqtt_devstack) as client:
        await client.subscribe(topic, qos=1)
        await client.publish(topic, b"x", qos=1)
        with anyio.fail_after(60), pytest.raises(ZeroDivisionError):  # noqa: PT012
            async for message in client.messages:
                async with process(message):
                    raise ZeroDivisionError("broken")
    (span,) = instrumented.processes()
    assert span.attributes["error.type"] == "ZeroDivisionError"
    assert span.status.status_code is StatusCode.ERROR


async def test_cancelling_the_loop_is_told_as_such(instrumented: Any, mqtt_devstack: Any, topic: str) -> None:
    async with client_of(mqtt_devstack) as client:
        await client.subscribe(topic, qos=1)
        await client.publish(topic, b"x", qos=1)
        with anyio.move_on_after(5) as scope:
            async for message in client.messages:
                async with process(message):
                    scope.cancel()
                    await anyio.sleep(5)
    assert instrumented.processes()[0].attributes["error.type"] == "asyncio.exceptions.CancelledError"
    assert not trace.get_current_span().get_span_context().is_valid


async def test_one_aiomqtt_client_by_hand(recorded: Any, mqtt_devstack: Any, topic: str) -> None:
    async with client_of(mqtt_devstack) as client:
        PahoInstrumentor().instrument_client(client, **recorded.providers)
        await client.publish(topic, b"x", qos=1)
        PahoInstrumentor().uninstrument_client(client)
        await client.publish(topic, b"x", qos=1)
    assert len(recorded.spans("send")) == 1


async def test_process_while_nothing_is_instrumented(mqtt_devstack: Any, topic: str) -> None:
    message = aiomqtt.Message(topic, b"x", 0, False, 0, None)
    with process(message) as span:
        assert not span.is_recording()
