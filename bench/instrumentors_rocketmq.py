"""RocketMQ's cases: a send, a listener's call, a poll of 32; a transport that answers at once stands in for gRPC."""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry.trace import Link
from rocketmq import FilterExpression, Message

from bench.instrumentation_rocketmq import (
    _BATCH,
    _BODY,
    _TOPIC,
    _configuration,
    _Consumer,
    _Listener,
    _Producer,
    _received,
)
from bench.instrumentors_floor import Case, Floor
from spanbridge_context import TraceContext
from spanbridge_instrumentation import process
from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation.rocketmq import RocketMQInstrumentor
from spanbridge_instrumentation.rocketmq.active import RocketMQClientState
from spanbridge_instrumentation.rocketmq.listening import Listener

_ID: Final = "0102FC0000000149630B15BF0900000000"
_LINK: Final = {semconv.MESSAGE_ID: _ID, "messaging.rocketmq.message.delivery_attempt": 1}
_CLIENT: Final = {semconv.CLIENT_ID: "host@1@0@0123456789"}

logging.getLogger("rocketmq-python-client").disabled = True  # it writes a file of its own


def _labels(operation: str, kind: str, group: bool = True) -> dict[str, Any]:
    return {
        semconv.SYSTEM: "rocketmq",
        semconv.OPERATION_NAME: operation,
        semconv.OPERATION_TYPE: kind,
        semconv.DESTINATION_NAME: _TOPIC,
        **({semconv.CONSUMER_GROUP: "group"} if group else {}),
        semconv.SERVER_ADDRESS: "127.0.0.1",
        semconv.SERVER_PORT: 8081,
    }


def _process_attributes() -> dict[str, Any]:
    more = {semconv.BODY_SIZE: len(_BODY), "messaging.rocketmq.message.type": "normal"}
    model = {"messaging.rocketmq.consumption_model": "clustering"}
    return {**_labels("process", "process"), **_CLIENT, **model, **more, **_LINK}


def _carrier(sampled: bool) -> dict[str, str]:
    return {"traceparent": TraceContext.new(sampled).traceparent}


def send(_sampled: bool) -> Case:
    """``Producer.send``."""
    producer = _Producer(_configuration())
    message = Message()
    message.topic, message.body = _TOPIC, _BODY
    labels = _labels("send", "send", group=False)
    attributes = {
        **labels,
        **_CLIENT,
        semconv.BODY_SIZE: len(_BODY),
        "messaging.rocketmq.message.type": "normal",
    }

    def call() -> None:
        producer.send(message)

    def sdk(floor: Floor, metrics: bool) -> None:
        floor.send(f"send {_TOPIC}", attributes, labels, call, metrics, **{semconv.MESSAGE_ID: _ID})

    return Case("rocketmq send", RocketMQInstrumentor(), call, call, sdk)


def listener(sampled: bool) -> Case:
    """A push consumer's listener. The message is decoded for each call, as it is by the client."""
    bare = _Listener()
    state = RocketMQClientState()
    wrapped = Listener(bare, state)
    state.identify(_Consumer(_configuration(), "group", {_TOPIC: FilterExpression()}))
    attributes, labels, carrier = _process_attributes(), _labels("process", "process"), _carrier(sampled)

    def call() -> None:
        bare.consume(_received(sampled))

    def instrumented() -> None:
        wrapped.consume(_received(sampled))

    def sdk(floor: Floor, metrics: bool) -> None:
        floor.process(f"process {_TOPIC}", attributes, labels, carrier, call, metrics, link=_LINK)

    return Case("rocketmq listener", RocketMQInstrumentor(), call, instrumented, sdk)


def poll(sampled: bool) -> Case:
    """``receive`` of 32 messages and ``with process(message)`` around each."""
    consumer = _Consumer(_configuration(), "group", {_TOPIC: FilterExpression()})
    consumer.sampled = sampled
    attributes, labels, carrier = _process_attributes(), _labels("process", "process"), _carrier(sampled)
    receiving = _labels("receive", "receive")
    receive_attributes = {**receiving, **_CLIENT, semconv.BATCH_COUNT: _BATCH}

    def nothing() -> None:
        pass

    def plain() -> None:
        for _ in consumer.receive(_BATCH, 15):
            nothing()

    def instrumented() -> None:
        for message in consumer.receive(_BATCH, 15):
            with process(message):
                nothing()

    def sdk(floor: Floor, metrics: bool) -> None:
        messages = consumer.receive(_BATCH, 15)
        span = floor.receive(
            f"receive {_TOPIC}", receive_attributes, receiving, [carrier] * len(messages), _LINK, metrics
        )
        more = [Link(span.get_span_context())] if sampled else []
        for _ in messages:
            floor.process(
                f"process {_TOPIC}", attributes, labels, carrier, nothing, metrics, link=_LINK, more=more,
            )  # fmt: skip

    return Case("rocketmq poll", RocketMQInstrumentor(), plain, instrumented, sdk, messages=_BATCH)
