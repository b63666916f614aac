"""A real client, real brokers, and everything that was recorded."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from paho.mqtt.properties import VariableByteIntegers

from spanbridge_instrumentation.paho import PahoInstrumentor
from spanbridge_instrumentation.paho.pending import PENDING


def eventually(what: Callable[[], Any], timeout: float = 30.0) -> Any:
    """The first true value of ``what()``, asked again until the deadline."""
    deadline = time.monotonic() + timeout
    while not (value := what()):
        if time.monotonic() > deadline:
            raise AssertionError("did not happen in time")
        time.sleep(0.005)
    return value


class Recorded:
    """Spans and metrics in memory, and the providers that put them there."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def providers(self) -> dict[str, Any]:
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    @property
    def tracer(self) -> Tracer:
        return self.tracer_provider.get_tracer("user")

    def spans(self, operation: str | None = None) -> list[ReadableSpan]:
        return [
            span
            for span in self.exporter.get_finished_spans()
            if operation is None or (span.attributes or {}).get("messaging.operation.name") == operation
        ]

    def wait(self, operation: str, count: int = 1) -> list[ReadableSpan]:
        found: list[ReadableSpan] = eventually(lambda: spans if len(spans := self.spans(operation)) >= count else None)
        return found

    def sends(self, count: int = 1) -> list[ReadableSpan]:
        return self.wait("send", count)

    def processes(self, count: int = 1) -> list[ReadableSpan]:
        return self.wait("process", count)

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def total(self, name: str, **labels: Any) -> int:
        """Messages counted, or durations recorded, with these labels (``_`` stands for ``.``)."""
        wanted = {key.replace("_", "."): value for key, value in labels.items()}
        return sum(
            getattr(point, "value", None) or getattr(point, "count", 0)
            for point in self.points(name)
            if wanted.items() <= dict(point.attributes).items()
        )


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    recorded.tracer_provider.shutdown()
    recorded.meter_provider.shutdown()


@pytest.fixture
def instrument(recorded: Recorded) -> Iterator[Callable[..., PahoInstrumentor]]:
    """Instruments with options; everything is undone after the test."""

    def instrument(**options: Any) -> PahoInstrumentor:
        instrumentor = PahoInstrumentor()
        instrumentor.instrument(**recorded.providers, **options)
        return instrumentor

    yield instrument
    if PahoInstrumentor().is_instrumented_by_opentelemetry:
        PahoInstrumentor().uninstrument()
    PENDING.give_up_all()


@pytest.fixture
def instrumented(instrument: Callable[..., PahoInstrumentor], recorded: Recorded) -> Recorded:
    instrument()
    return recorded


Connect = Callable[..., mqtt.Client]


@pytest.fixture
def connect(mqtt_devstack: Any) -> Iterator[Connect]:
    """Makes connected clients whose network thread runs; ``version`` is "5" or "3.1.1"."""
    clients: list[mqtt.Client] = []

    def connect(
        version: str = "5",
        *,
        kind: type[mqtt.Client] = mqtt.Client,
        api: mqtt.CallbackAPIVersion = mqtt.CallbackAPIVersion.VERSION2,
        subscribe: str | None = None,
        on_message: Any = None,
        prepare: Callable[[mqtt.Client], Any] | None = None,
        broker: Any = None,
    ) -> mqtt.Client:
        protocol = mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311
        client = kind(api, client_id=mqtt_devstack.unique("client"), protocol=protocol)
        clients.append(client)
        if on_message is not None:
            client.on_message = on_message
        if prepare is not None:
            prepare(client)
        ready = threading.Event()
        client.on_connect = lambda *_: ready.set()
        client.on_subscribe = lambda *_: ready.set()
        server = broker or (mqtt_devstack.mqtt_v5 if version == "5" else mqtt_devstack.mqtt_v311)
        client.connect(server.host, server.port)
        client.loop_start()
        assert ready.wait(30)
        if subscribe is not None:
            ready.clear()
            client.subscribe(subscribe, qos=2)
            assert ready.wait(30)
        return client

    yield connect
    for client in clients:
        with contextlib.suppress(Exception):
            client.disconnect()
        client.loop_stop()
        client._reset_sockets()


@pytest.fixture
def topic(mqtt_devstack: Any) -> str:
    """A topic that no other test uses; ``tests/+/#`` is a filter for it."""
    return f"tests/{mqtt_devstack.unique()}"


class Scripted:
    """A broker that answers only when told to: packets in a test's own order. MQTT 5.0 section 3.

    CONNECT is answered at once; the rest is up to the test.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self._connection: socket.socket | None = None
        self._clients: list[mqtt.Client] = []
        self.host, self.port = self._listener.getsockname()

    def client(
        self, *, loop: bool = True, prepare: Callable[[mqtt.Client], Any] | None = None, **kwargs: Any
    ) -> mqtt.Client:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="scripted", protocol=mqtt.MQTTv5, **kwargs)
        self._clients.append(client)
        if prepare is not None:
            prepare(client)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect(self.host, self.port)
        if loop:
            client.loop_start()
        self.accept()
        if loop:
            assert connected.wait(30)
        client.on_connect = None
        return client

    def accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(30)
        self.expect("CONNECT")
        self._send(b"\x20\x03\x00\x00\x00")

    def expect(self, kind: str) -> bytes:
        """The next packet's body, which must be of this kind."""
        first = self._read(1)[0]
        length, shift = 0, 0
        while True:
            byte = self._read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        body = self._read(length)
        assert mqtt.MessageType(first & 0xF0).name == kind
        return body

    def puback(self, mid: int, reason: int = 0) -> None:
        self._send(struct.pack("!BBHBB", 0x40, 4, mid, reason, 0))

    def pubrec(self, mid: int) -> None:
        self._send(struct.pack("!BBH", 0x50, 2, mid))

    def pubcomp(self, mid: int) -> None:
        self._send(struct.pack("!BBH", 0x70, 2, mid))

    def publish(self, topic: str | bytes, payload: bytes, properties: bytes = b"\0") -> None:
        """A QoS 0 message to the client; ``properties`` are packed already."""
        name = topic.encode() if isinstance(topic, str) else topic
        body = struct.pack("!H", len(name)) + name + properties + payload
        self._send(b"\x30" + VariableByteIntegers.encode(len(body)) + body)

    def drop(self) -> None:
        assert self._connection is not None
        self._connection.close()

    def forget(self) -> None:
        """Let go of the clients, so that the test has the last reference."""
        self._clients.clear()

    def close(self) -> None:
        for client in self._clients:
            with contextlib.suppress(Exception):
                client.disconnect()
            client.loop_stop()
            client._reset_sockets()
        if self._connection is not None:
            self._connection.close()
        self._listener.close()

    def _send(self, packet: bytes) -> None:
        assert self._connection is not None
        self._connection.sendall(packet)

    def _read(self, size: int) -> bytes:
        assert self._connection is not None
        data = b""
        while len(data) < size:
            more = self._connection.recv(size - len(data))
            assert more, "the client closed"
            data += more
        return data


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()
