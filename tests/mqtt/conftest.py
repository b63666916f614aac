"""What the MQTT tests share: a source under observation, a publisher, and a broker that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

import anyio
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from spanbridge.core.delivery import Delivery
from spanbridge.core.message import Publish
from spanbridge.mqtt import MqttOptions, PublisherOptions, Subscription, create_source
from spanbridge.ports import Link
from tests.fakes import FakeReporter

DEADLINE = 30.0
"""Seconds: what holds is seen at once, and a busy machine is no fault."""


async def until(condition: Callable[[], Any], what: str = "", *, timeout: float = DEADLINE) -> Any:
    """Poll until the condition holds; its value."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        await asyncio.sleep(0.005)
    return value


class Watched:
    """A running source, what it delivered and what it reported."""

    def __init__(self, options: MqttOptions) -> None:
        self.options = options
        self.reporter = FakeReporter()
        self.source = create_source(options, self.reporter)
        self.reads: list[list[Delivery[Publish]]] = []
        self.ack_at_once = False
        self.releases = 0
        self.task: asyncio.Task[None] | None = None

    def deliver(self, batch: list[Delivery[Publish]]) -> None:
        self.reads.append(batch)
        if self.ack_at_once:
            self.source.ack(batch)

    def released(self) -> None:
        self.releases += 1

    def ack(self) -> None:
        """Everything that came."""
        self.source.ack(self.deliveries)

    @property
    def deliveries(self) -> list[Any]:
        return [delivery for batch in self.reads for delivery in batch]

    @property
    def messages(self) -> list[Publish]:
        return [delivery.message for delivery in self.deliveries]

    @property
    def payloads(self) -> list[bytes]:
        return [publish.payload for publish in self.messages]

    @property
    def link(self) -> Link:
        return self.source.status.link

    @property
    def detail(self) -> dict[str, Any]:
        return self.source.status.detail

    def start(self) -> None:
        self.task = asyncio.create_task(self.source.run(self.deliver, self.released))

    async def up(self) -> None:
        def is_up() -> bool:
            assert self.task is not None
            if self.task.done():
                self.task.result()
            return self.link is Link.UP

        await until(is_up, f"{self.options.name} up; events {[e.text() for e in self.reporter.events]}")

    async def count(self, number: int) -> None:
        await until(lambda: len(self.messages) >= number, f"{number} messages, got {len(self.messages)}")

    async def event(self, name: str, number: int = 1) -> Any:
        await until(lambda: len(self.reporter.of(name)) >= number, f"event {name}; have {self.reporter.events}")
        return self.reporter.of(name)[number - 1]

    async def stop(self) -> None:
        await self.source.close()
        if self.task is not None:
            async with asyncio.timeout(DEADLINE):
                await self.task


@pytest.fixture(params=["5", "3.1.1"])
def version(request: pytest.FixtureRequest) -> str:
    """Both versions pass the same tests."""
    return str(request.param)


@pytest.fixture
def broker(version: str, mqtt_devstack: Any) -> Any:
    """The shared real broker for the version."""
    return mqtt_devstack.mqtt_v5 if version == "5" else mqtt_devstack.mqtt_v311


@pytest.fixture
def faithful_broker(broker: Any) -> Any:
    """The same, where it keeps sessions as MQTT says."""
    if broker.kind == "amqtt":
        pytest.skip("needs mosquitto: amqtt does not send unacknowledged messages again, nor at the right QoS")
    return broker


@pytest.fixture
async def watch(anyio_backend: object, version: str, unique: Callable[[str], str]) -> AsyncIterator[Callable[..., Any]]:
    """``watch(host, port, topic=None, start=True, **options)`` makes a source; all are closed at the end."""
    made: list[Watched] = []

    def make(host: str, port: int, topic: str | None = None, *, start: bool = True, **options: Any) -> Watched:
        settings: dict[str, Any] = {
            "name": "test",
            "version": version,
            "client_id": unique("c"),
            "backoff_initial": 0.05,
            "backoff_maximum": 0.2,
            "subscriptions": () if topic is None else (Subscription(filter=topic, qos=2),),
        }
        watched = Watched(MqttOptions(host=host, port=port, **(settings | options)))
        made.append(watched)
        if start:
            watched.start()
        return watched

    yield make
    for watched in made:
        await watched.stop()


@pytest.fixture
async def publishing(
    anyio_backend: object, version: str, unique: Callable[[str], str]
) -> AsyncIterator[Callable[..., Any]]:
    """``publishing(host, port, start=True, **options)`` makes a publisher; all are closed at the end."""
    from .publishing import Publishing

    made: list[Publishing] = []

    def make(host: str, port: int, *, start: bool = True, **options: Any) -> Publishing:
        settings: dict[str, Any] = {
            "name": "test-down",
            "version": version,
            "client_id": unique("d"),
            "backoff_initial": 0.05,
            "backoff_maximum": 0.2,
        }
        one = Publishing(PublisherOptions(host=host, port=port, **(settings | options)))
        made.append(one)
        if start:
            one.start()
        return one

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Names that no other test uses."""
    import uuid

    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:10]}"


Message = tuple[str, bytes, int]


def _publish(broker: Any, version: str, messages: Sequence[Message], options: dict[str, Any]) -> None:
    protocol = MQTTProtocolVersion.MQTTv5 if version == "5" else MQTTProtocolVersion.MQTTv311
    client = Client(CallbackAPIVersion.VERSION2, protocol=protocol)
    client.max_queued_messages_set(0)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    if options.get("username"):
        client.username_pw_set(options["username"], options["password"])
    properties = Properties(PacketTypes.PUBLISH) if version == "5" else None
    for name, value in options.get("properties", {}).items():
        setattr(properties, name, value)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        assert connected.wait(DEADLINE)
        pending = [
            client.publish(topic, payload, qos, options.get("retain", False), properties=properties)
            for topic, payload, qos in messages
        ]
        for info in pending:
            info.wait_for_publish(DEADLINE)
            assert info.is_published()
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.fixture
def publish(broker: Any, version: str) -> Callable[..., Awaitable[None]]:
    """``await publish([(topic, payload, qos), ...], to=broker, **options)`` with an independent client."""

    async def send(messages: Sequence[Message], *, to: Any = None, **options: Any) -> None:
        await anyio.to_thread.run_sync(_publish, to or broker, version, list(messages), options)

    return send


class ScriptedBroker:
    """A peer that does exactly what the test says. ``script(reader, writer, number)`` serves connection ``number``."""

    def __init__(self, script: Callable[..., Awaitable[None]]) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.host = "127.0.0.1"
        self.port = 0
        self.received: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.listener = self._server.sockets[0]
        self.port = self.listener.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._script(self, reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def packet(self, reader: asyncio.StreamReader) -> bytes:
        """The next packet from the client, whole; packets of less than 128 bytes remaining length, and CONNECT."""
        head = await reader.readexactly(2)
        size, shift = head[1] & 0x7F, 7
        while head[-1] & 0x80:
            head += await reader.readexactly(1)
            size |= (head[-1] & 0x7F) << shift
            shift += 7
        packet = head + await reader.readexactly(size)
        self.received.append(packet)
        if packet[0] == 0xE0:
            raise ConnectionAbortedError("DISCONNECT: the broker closes the connection (MQTT-3.14.4-1)")
        return packet


@pytest.fixture
def scripted() -> type[ScriptedBroker]:
    """Makes brokers for what real ones do not do."""
    return ScriptedBroker


@pytest.fixture(autouse=True)
def no_asyncio_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    """asyncio logs un-retrieved exceptions and writes to closed transports: none may happen."""
    yield
    complaints = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.name == "asyncio" and record.levelno >= logging.WARNING and "aults.py" not in record.getMessage()
    ]
    assert not complaints


@pytest.fixture
def poll() -> Callable[..., Awaitable[Any]]:
    """``await poll(condition, what)``."""
    return until
