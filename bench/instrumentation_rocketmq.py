"""Overhead of the RocketMQ instrumentation per message: CPU time of sending, of polling and of a listener's call.

The client's own code runs up to its network: a transport that answers at once stands in for gRPC, so that nothing but
the client and the instrumentation is measured. Plain and instrumented take turns in the same run. The SDK's cost is in
it: spans, metrics, and, for the sampled mode, the batch processor's queue; exporting is not.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
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
)
from rocketmq.grpc_protocol import (
    Code,
    DigestType,
    Encoding,
    Permission,
    definition_pb2,
    service_pb2,
)
from rocketmq.v5.model.topic_route import TopicRouteData
from rocketmq.v5.util import Misc

from spanbridge_context import TraceContext
from spanbridge_instrumentation import process
from spanbridge_instrumentation.rocketmq import RocketMQInstrumentor

_MESSAGES = 2000
_ROUNDS = 5
_BATCH = 32
_BODY = b"x" * 128
_TOPIC = "telemetry"


def measure(_stack: Any = None) -> dict[str, Any]:
    """``{"send": {...}, "process": {...}, "poll": {...}}``, each with µs of CPU per message and the two overheads.

    ``process`` is a push consumer's listener; ``poll`` is ``receive`` of 32 messages and a ``with process(message)``
    around each.
    """
    runs: dict[str, Callable[[bool], float]] = {"send": _send, "process": _process, "poll": _poll}
    results = {}
    with _quiet():
        for name, run in runs.items():
            plain: list[float] = []
            unsampled: list[float] = []
            full: list[float] = []
            for _ in range(_ROUNDS):
                plain.append(run(False))
                unsampled.append(_instrumented(ParentBased(ALWAYS_OFF), run, sampled=False))
                full.append(_instrumented(ParentBased(ALWAYS_ON), run, sampled=True))
            base = statistics.median(plain)
            results[name] = {
                "plain_us": round(base, 2),
                "unsampled_us": round(statistics.median(unsampled), 2),
                "sampled_us": round(statistics.median(full), 2),
                "overhead_unsampled_us": round(statistics.median(unsampled) - base, 2),
                "overhead_sampled_us": round(statistics.median(full) - base, 2),
            }
    return results


class _Discard(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class _Transport:
    """Answers at once, as the broker would."""

    def __init__(self) -> None:
        self._answer = service_pb2.SendMessageResponse()
        self._answer.status.code = Code.OK
        self._answer.entries.add().message_id = "0102FC0000000149630B15BF0900000000"

    def send_message_async(self, *_: Any, **__: Any) -> Future[Any]:
        answered: Future[Any] = Future()
        answered.set_result(self._answer)
        return answered


class _Producer(Producer):  # type: ignore[misc]
    """A producer without a network: started, connected, with a route."""

    is_running = True
    rpc_client = _Transport()

    def _retrieve_topic_route_data(self, topic: str) -> TopicRouteData:
        return _ROUTE


class _Consumer(SimpleConsumer):  # type: ignore[misc]
    """A consumer without a network, whose polls are always answered."""

    is_running = True
    sampled = False

    def _retrieve_topic_route_data(self, topic: str) -> TopicRouteData:
        return _ROUTE

    def _receive(self, *_: Any) -> list[Message]:
        return [_received(self.sampled) for _ in range(_BATCH)]


class _Listener(MessageListener):  # type: ignore[misc]
    def consume(self, message: Message) -> ConsumeResult:
        return ConsumeResult.SUCCESS


def _route() -> TopicRouteData:
    queue = definition_pb2.MessageQueue(permission=Permission.READ_WRITE, accept_message_types=[1])
    queue.topic.name, queue.broker.name = _TOPIC, "broker"
    queue.broker.endpoints.addresses.add(host="127.0.0.1", port=8081)
    return TopicRouteData([queue])


_ROUTE = _route()


def _configuration() -> ClientConfiguration:
    return ClientConfiguration("127.0.0.1:8081", Credentials())


def _received(sampled: bool) -> Message:
    raw = definition_pb2.Message(body=_BODY, user_properties={"traceparent": TraceContext.new(sampled).traceparent})
    raw.topic.name = _TOPIC
    system = raw.system_properties
    system.message_id, system.delivery_attempt, system.message_type = "0102FC0000000149630B15BF0900000000", 1, 1
    system.body_encoding = Encoding.IDENTITY
    system.body_digest.type, system.body_digest.checksum = DigestType.CRC32, Misc.crc32_checksum(_BODY)
    return Message().fromProtobuf(raw)


def _send(_sampled: bool) -> float:
    producer = _Producer(_configuration())
    message = Message()
    message.topic, message.body = _TOPIC, _BODY
    return _timed(lambda: producer.send(message))


def _process(sampled: bool) -> float:
    consumer = PushConsumer(_configuration(), "group", _Listener(), {_TOPIC: FilterExpression()})
    listener = next(value for value in vars(consumer).values() if isinstance(value, MessageListener))
    return _timed(lambda: listener.consume(_received(sampled)))


def _poll(sampled: bool) -> float:
    consumer = _Consumer(_configuration(), "group", {_TOPIC: FilterExpression()})
    consumer.sampled = sampled

    def poll() -> None:
        for message in consumer.receive(_BATCH, 15):
            with process(message):
                pass

    return _timed(poll, _BATCH)


def _instrumented(sampler: Sampler, run: Callable[[bool], float], *, sampled: bool) -> float:
    tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(_Discard()))
    meter_provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    RocketMQInstrumentor().instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
    try:
        return run(sampled)
    finally:
        RocketMQInstrumentor().uninstrument()
        tracer_provider.shutdown()
        meter_provider.shutdown()


def _timed(call: Callable[[], Any], messages: int = 1) -> float:
    calls = _MESSAGES // messages
    for _ in range(calls // 10):
        call()
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / (calls * messages) * 1e6


@contextmanager
def _quiet() -> Iterator[None]:
    """The client writes a log file of its own."""
    logger = logging.getLogger("rocketmq-python-client")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled
