"""aiomqtt's ``async for`` as a developer writes it, without a word of tracing."""

from __future__ import annotations

import asyncio
from typing import Any

import aiomqtt
import anyio
import pytest
from opentelemetry import trace

from spanbridge_instrumentation import process

from .test_aiomqtt import client_of

pytestmark = pytest.mark.anyio


def is_nothing_current() -> bool:
    return not trace.get_current_span().get_span_context().is_valid


async def publish(client: aiomqtt.Client, topic: str, count: int) -> None:
    for number in range(count):
        await client.publish(f"{topic}/{number}", b"x", qos=1)


async def test_what_the_body_sends_is_in_the_messages_trace(
    instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str
) -> None:
    instrument(loop_spans=True)
    async with client_of(mqtt_devstack) as client:
        await client.subscribe("tests/+/#", qos=1)
        await publish(client, topic, 2)
        with anyio.fail_after(60):
            async for message in client.messages:
                await client.publish(f"other/{topic}", b"inside", qos=1)
                if str(message.topic).endswith("1"):
                    break
        assert is_nothing_current()
    outer, answers = recorded.sends(4)[:2], recorded.sends(4)[2:]
    processes = recorded.processes(2)
    assert [span.name for span in processes] == ["process tests/+/#"] * 2
    assert [span.parent.span_id for span in processes] == [span.context.span_id for span in outer]
    assert [span.parent.span_id for span in answers] == [span.context.span_id for span in processes]
    assert {span.attributes["server.address"] for span in processes} == {mqtt_devstack.mqtt_v5.host}
    assert recorded.total("messaging.process.duration") == 2
    assert recorded.total("spanbridge.consumer.in_flight") == 0


async def test_waiting_for_the_next_message_is_in_no_span(
    instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str
) -> None:
    instrument(loop_spans=True)
    handled = anyio.Event()

    async def consume(client: aiomqtt.Client) -> None:
        async for _ in client.messages:
            handled.set()

    async with client_of(mqtt_devstack) as client:
        await client.subscribe(f"{topic}/#", qos=1)
        task = asyncio.create_task(consume(client))
        await publish(client, topic, 1)
        with anyio.fail_after(60):
            await handled.wait()
            while not recorded.spans("process"):
                await anyio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(recorded.spans("process")) == 1


async def test_two_loops_in_two_tasks(instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str) -> None:
    instrument(loop_spans=True)
    mixed: list[str] = []

    async def consume(name: str) -> None:
        async with client_of(mqtt_devstack) as client:
            await client.subscribe(f"{topic}/{name}", qos=1)
            for _ in range(3):
                await client.publish(f"{topic}/{name}", b"x", qos=1)
            left = 3
            async for _ in client.messages:
                mine = trace.get_current_span()
                await client.publish(f"answers/{name}", b"x", qos=1)
                if trace.get_current_span() is not mine:
                    mixed.append(name)
                left -= 1
                if not left:
                    return

    with anyio.fail_after(60):
        await asyncio.gather(consume("a"), consume("b"))
    assert mixed == []
    by_id = {span.context.span_id: span for span in recorded.processes(6)}
    answers = [span for span in recorded.sends(12) if span.parent is not None]
    assert len(answers) == 6
    for answer in answers:
        parent = by_id[answer.parent.span_id]
        destination = str(answer.attributes["messaging.destination.name"])
        assert str(parent.attributes["messaging.destination.name"]).endswith(destination[-2:])


async def test_an_error_that_leaves_the_loop_ends_the_span(
    instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str
) -> None:
    instrument(loop_spans=True)
    async with client_of(mqtt_devstack) as client:
        await client.subscribe(f"{topic}/#", qos=1)
        await publish(client, topic, 1)
        with anyio.fail_after(60), pytest.raises(ZeroDivisionError):  # noqa: PT012
            async for _ in client.messages:
                raise ZeroDivisionError
        assert is_nothing_current()
        assert len(recorded.spans("process")) == 1


async def test_with_process_in_the_body_is_the_same_span(
    instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str
) -> None:
    instrument(loop_spans=True)
    async with client_of(mqtt_devstack) as client:
        await client.subscribe(f"{topic}/#", qos=1)
        await publish(client, topic, 1)
        with anyio.fail_after(60):
            async for message in client.messages:
                with process(message) as span:
                    assert span is trace.get_current_span()
                assert is_nothing_current()
                break
    assert len(recorded.processes()) == 1


@pytest.mark.parametrize("ask", ["anext", "wait_for", "off"])
async def test_where_nobody_says_when_a_message_is_done_there_is_no_span(
    instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str, ask: str
) -> None:
    instrument(loop_spans=ask != "off")
    async with client_of(mqtt_devstack) as client:
        await client.subscribe(f"{topic}/#", qos=1)
        await publish(client, topic, 1)
        with anyio.fail_after(60):
            if ask == "anext":
                await anext(client.messages)
            elif ask == "wait_for":
                await asyncio.wait_for(client.messages.__anext__(), 60)
            else:
                async for _ in client.messages:
                    break
        assert is_nothing_current()
    assert recorded.spans("process") == []
    assert recorded.total("messaging.client.consumed.messages") == 1


async def test_uninstrumented_in_the_body(instrument: Any, recorded: Any, mqtt_devstack: Any, topic: str) -> None:
    instrumentor = instrument(loop_spans=True)
    async with client_of(mqtt_devstack) as client:
        await client.subscribe(f"{topic}/#", qos=1)
        await publish(client, topic, 2)
        with anyio.fail_after(60):
            left = 2
            async for _ in client.messages:
                left -= 1
                if left:
                    instrumentor.uninstrument()
                else:
                    break
    assert len(recorded.spans("process")) == 1
