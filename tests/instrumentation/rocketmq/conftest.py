"""Real clients, a real broker, and everything that was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer
from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
    SimpleConsumer,
    TransactionChecker,
    TransactionResolution,
)
from rocketmq.v5.exception import IllegalStateException, InternalErrorException

from spanbridge_instrumentation.rocketmq import RocketMQInstrumentor


def eventually(what: Callable[[], Any], timeout: float = 30.0) -> Any:
    """The first true value of ``what()``, asked again until the deadline."""
    deadline = time.monotonic() + timeout
    while not (value := what()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
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
        """Spans of an operation, in the order in which they ended."""
        return [
            span
            for span in self.exporter.get_finished_spans()
            if operation is None or (span.attributes or {}).get("messaging.operation.name") == operation
        ]

    def only(self, operation: str) -> ReadableSpan:
        (span,) = self.spans(operation)
        return span

    def wait(self, operation: str, count: int = 1) -> list[ReadableSpan]:
        found: list[ReadableSpan] = eventually(lambda: s if len(s := self.spans(operation)) >= count else None)
        assert len(found) == count
        return found

    def total(self, name: str, **labels: Any) -> int:
        """Messages counted, or durations recorded, with these labels (``_`` stands for ``.``)."""
        wanted = {key.replace("_", "."): value for key, value in labels.items()}
        data = self.reader.get_metrics_data()
        points = [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return sum(
            getattr(point, "value", None) or getattr(point, "count", 0)
            for point in points
            if wanted.items() <= dict(point.attributes).items()
        )


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    recorded.tracer_provider.shutdown()
    recorded.meter_provider.shutdown()


@pytest.fixture
def instrument(recorded: Recorded) -> Iterator[Callable[..., RocketMQInstrumentor]]:
    """Instruments with options; everything is undone after the test."""

    def instrument(**options: Any) -> RocketMQInstrumentor:
        instrumentor = RocketMQInstrumentor()
        instrumentor.instrument(**recorded.providers, **options)
        return instrumentor

    yield instrument
    instrumentor = RocketMQInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    else:
        instrumentor._uninstrument()


@pytest.fixture
def instrumented(instrument: Callable[..., RocketMQInstrumentor], recorded: Recorded) -> Recorded:
    instrument()
    return recorded


@pytest.fixture(scope="session")
def configuration(devstack: Any) -> ClientConfiguration:
    return ClientConfiguration(devstack.rocketmq.endpoints, Credentials(), request_timeout=15)


class Checker(TransactionChecker):
    """Commits; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def check(self, message: Any) -> Any:
        self.asked.append(message)
        return TransactionResolution.COMMIT


@pytest.fixture(scope="session")
def producer(configuration: ClientConfiguration) -> Iterator[Producer]:
    """Made and started before anything is instrumented."""
    producer = Producer(configuration, None, Checker())
    producer.startup()
    yield producer
    producer.shutdown()


Poll = Callable[..., SimpleConsumer]


@pytest.fixture
def poll(configuration: ClientConfiguration, devstack: Any) -> Iterator[Poll]:
    """Makes started consumers that poll. New groups begin with what is in the topic."""
    made: list[SimpleConsumer] = []

    def poll(*topics: str, seconds: int = 5, warm: bool = False) -> SimpleConsumer:
        """``warm``: it has polled once, in vain, so that the broker knows it."""
        subscription = {topic: FilterExpression() for topic in topics}
        consumer = SimpleConsumer(configuration, devstack.group(), subscription, await_duration=1 if warm else seconds)
        made.append(consumer)
        consumer.startup()
        if warm:
            with suppress_instrumentation():
                assert polled(consumer) == []
            consumer.await_duration = seconds
        return consumer

    yield poll
    for consumer in made:
        consumer.shutdown()


def polled(consumer: SimpleConsumer) -> list[Message]:
    """What one poll brings. The broker may not know a fresh consumer's settings yet, which is an error of its own."""

    def messages() -> list[list[Message]]:
        try:
            return [consumer.receive(32, 30)]
        except InternalErrorException:
            return []

    found: list[Message] = eventually(messages)[0]
    return found


def receive(consumer: SimpleConsumer, count: int = 1) -> list[Message]:
    """Exactly so many messages, by as many polls as it takes (they come from one queue at a time)."""
    found: list[Message] = []

    def enough() -> bool:
        found.extend(polled(consumer))
        return len(found) >= count

    eventually(enough)
    assert len(found) == count
    return found


class Collecting(MessageListener):
    """A listener that does what ``handle`` does."""

    def __init__(self, handle: Callable[[Message], Any] = lambda _: ConsumeResult.SUCCESS) -> None:
        self.handle = handle
        self.seen: list[Message] = []

    def consume(self, message: Message) -> Any:
        self.seen.append(message)
        return self.handle(message)


def started(make: Callable[[], PushConsumer], attempts: int = 3) -> PushConsumer:
    """A consumer that runs. The client's start can fail where event loops come and go in the same thread, as here.

    Its telemetry stream then finds "no current event loop", and the server's settings never come. It has ended by then.
    """
    for _ in range(attempts - 1):
        consumer = make()
        try:
            consumer.startup()
        except IllegalStateException:
            continue
        return consumer
    consumer = make()
    consumer.startup()
    return consumer


@pytest.fixture
def push(configuration: ClientConfiguration, devstack: Any) -> Iterator[Callable[..., PushConsumer]]:
    """Makes started push consumers."""
    made: list[PushConsumer] = []

    def push(listener: Any, topic: str, *, fifo: bool = False, max_attempts: int = 16) -> PushConsumer:
        group = devstack.group(fifo=fifo, max_attempts=max_attempts)
        consumer = started(lambda: PushConsumer(configuration, group, listener, {topic: FilterExpression()}))
        made.append(consumer)
        return consumer

    yield push
    for consumer in made:
        consumer.shutdown()


@pytest.fixture(scope="session")
def shared_topic(devstack: Any) -> str:
    """A topic for tests that only send."""
    topic: str = devstack.topic("NORMAL", queues=1)
    return topic


def message(topic: str, body: bytes = b"body", **attributes: Any) -> Message:
    """A message with attributes and user properties (``properties``)."""
    made = Message()
    made.topic = topic
    made.body = body
    for key, value in attributes.pop("properties", {}).items():
        made.add_property(key, value)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def kind_of(span: ReadableSpan) -> str:
    return SpanKind(span.kind).name
