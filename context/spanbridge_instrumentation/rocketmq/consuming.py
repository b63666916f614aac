"""Messages that are polled for: ``receive``, settlements, and what ``process(message)`` needs to know."""

from __future__ import annotations

from time import perf_counter, time_ns
from typing import Any, Final

from opentelemetry.context import get_current
from opentelemetry.trace import Link, SpanContext, SpanKind, get_current_span, set_span_in_context
from opentelemetry.util.types import AttributeValue

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.processing import Delivery
from spanbridge_instrumentation._shared.safety import call_hook, error_type, internal_error

from .active import (
    NOBODY,
    RECEIVED,
    Labels,
    Received,
    RocketMQClientState,
    RocketMQInstrumentation,
    any_instrumentation,
    instrumentation_of,
    instrumentation_of_state,
    state_of,
)
from .attributes import CONSUMPTION_MODEL, INVISIBLE_DURATION, PROBLEM, of_incoming, of_link
from .carriers import TRACE_CONTEXTS, read
from .operations import Operation, Original, call, fail, span_name, watch

Attributes = dict[str, AttributeValue]


class Poll:
    """One ``receive``. Its span is made when it is over: links are given at a span's start, and idle polls make none.

    https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ ("Consumer spans")
    """

    __slots__ = ("_instrumentation", "_parent", "_started", "_started_ns", "_state", "_topic")

    def __init__(self, instrumentation: RocketMQInstrumentation, state: RocketMQClientState, topic: str | None) -> None:
        self._instrumentation = instrumentation
        self._state = state
        self._topic = topic
        self._parent = get_current()
        self._started_ns = time_ns()
        self._started = perf_counter()

    def received(self, messages: Any) -> None:
        """It brought these messages, perhaps none."""
        try:
            elapsed = perf_counter() - self._started
            telemetry = self._instrumentation.telemetry
            if not messages:
                telemetry.operated(elapsed, self._labels(self._topic))
                return
            labels = self._labels(messages[0].topic)
            links = []
            for message in messages:
                context = read(message, self._parent).context
                if context is not None:
                    links.append(Link(get_current_span(context).get_span_context(), of_link(message)))
            span = self._span(labels, links, {semconv.BATCH_COUNT: len(messages)})
            found = span.get_span_context()
            received = Received(self._state, found if found.trace_flags.sampled else None)
            held = self._instrumentation.telemetry.in_flight
            for message in messages:
                RECEIVED.put(message, received)
                held.add_message(message, self._state.labels("process", "process", message.topic))
            telemetry.operated(elapsed, labels, context=set_span_in_context(span, self._parent))
            telemetry.consumed(len(messages), labels)
            if span.is_recording():
                call_hook("a receive hook", self._instrumentation.options.receive_hook, span, messages)
            span.end(self._end_ns(elapsed))
        except Exception:  # noqa: BLE001  the messages are handed over
            internal_error("the end of a receive")

    def failed(self, error: BaseException) -> None:
        """It raised. Giving up an idle poll on purpose (Ctrl-C, a cancelled future) is no error and makes no span."""
        try:
            if not isinstance(error, Exception):
                return
            elapsed = perf_counter() - self._started
            labels = self._labels(self._topic)
            span = self._span(labels, [], {})
            fail(span, error)
            failed = {**labels, semconv.ERROR_TYPE: error_type(error)}
            context = set_span_in_context(span, self._parent)
            self._instrumentation.telemetry.operated(elapsed, failed, context=context)
            span.end(self._end_ns(elapsed))
        except Exception:  # noqa: BLE001
            internal_error("a failed receive")

    def _labels(self, topic: str | None) -> Labels:
        return self._state.labels("receive", "receive", topic)

    def _span(self, labels: Labels, links: list[Link], more: Attributes) -> Any:
        return self._instrumentation.telemetry.tracer.start_span(
            span_name(labels),
            self._parent,
            SpanKind.CLIENT,
            {**labels, **self._state.details, **more},
            links=links,
            start_time=self._started_ns,
        )

    def _end_ns(self, elapsed: float) -> int:
        return self._started_ns + int(elapsed * 1e9)


def replace_receive(original: Original) -> Original:
    """``SimpleConsumer.receive``."""

    def receive(consumer: Any, *args: Any, **kwargs: Any) -> Any:
        poll = _poll(consumer)
        if poll is None:
            return original(consumer, *args, **kwargs)
        try:
            messages = original(consumer, *args, **kwargs)
        except BaseException as error:
            poll.failed(error)
            raise
        poll.received(messages)
        return messages

    return receive


def replace_receive_async(original: Original) -> Original:
    """``SimpleConsumer.receive_async``: over when its future is done."""

    def receive_async(consumer: Any, *args: Any, **kwargs: Any) -> Any:
        poll = _poll(consumer)
        if poll is None:
            return original(consumer, *args, **kwargs)
        try:
            future = original(consumer, *args, **kwargs)
        except BaseException as error:
            poll.failed(error)
            raise

        def done(messages: Any, error: BaseException | None) -> None:
            if error is not None:
                poll.failed(error)
            elif messages is not None:
                poll.received(messages)

        watch(future, done)
        return future

    return receive_async


def replace_settlement(name: str, original: Original) -> Original:
    """``SimpleConsumer.ack``, ``change_invisible_duration`` and their asynchronous forms.

    The asynchronous ones return nothing in the releases so far, so that their span can only end when the request has
    been handed over; of one that returns a future, it ends with that.
    """

    def settle(consumer: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        operation = _settlement(name, consumer, message, args, kwargs)
        result = call(operation, original, consumer, message, *args, **kwargs)
        if operation is not None and name == "ack":  # a longer hold is none, and what is given back is soon let go of
            operation.instrumentation.telemetry.in_flight.settle(message)
        if operation is not None and not watch(result, lambda _, error: operation.end(error)):
            operation.end()
        return result

    return settle


def replace_from_protobuf(original: Original) -> Original:
    """``Message.fromProtobuf``: the client does not hand on the system property ``trace_context``."""

    def from_protobuf(message: Any, received: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(message, received, *args, **kwargs)
        try:
            trace_context = received.system_properties.trace_context
            if trace_context:
                TRACE_CONTEXTS.put(message, trace_context)
        except Exception:  # noqa: BLE001
            internal_error("a received message")
        return result

    return from_protobuf


def describe(message: Any) -> Delivery | None:
    """What ``process(message)`` needs of a message that was received."""
    received = RECEIVED.get(message)
    if received is None:
        instrumentation = any_instrumentation()
        return None if instrumentation is None else delivery(instrumentation, NOBODY, message)
    instrumentation = instrumentation_of_state(received.state)
    if instrumentation is None:
        return None
    return delivery(instrumentation, received.state, message, received.span, polled=True)


_CLUSTERING: Final[Attributes] = {CONSUMPTION_MODEL: "clustering"}  # what RocketMQ 5's clients have, and no other


def delivery(
    instrumentation: RocketMQInstrumentation,
    state: RocketMQClientState,
    message: Any,
    received: SpanContext | None = None,
    *,
    polled: bool = False,
) -> Delivery:
    """What is said of a message that is about to be processed; ``received`` is the span that brought it.

    ``polled``: it counts as in flight until it is acknowledged, whether it is being processed or not.
    """
    labels = state.labels("process", "process", message.topic)
    attributes: Attributes = {**labels, **state.details, **_CLUSTERING, **of_incoming(message)}
    found = read(message, get_current())
    if found.problem is not None:
        attributes[PROBLEM] = found.problem
    hook = instrumentation.options.consume_hook
    return Delivery(
        telemetry=instrumentation.telemetry,
        name=span_name(labels),
        attributes=attributes,
        labels=labels,
        context=found.context,
        link_attributes=of_link(message),
        received=received,
        hook=None if hook is None else lambda span: hook(span, message),
        delay=_delay(message),
        since="born",
        held=not polled,
    )


def _delay(message: Any) -> float | None:
    """Seconds since the message was born: since its producer sent it, or since it arrived at the gateway.

    It stays the same when the message is delivered again. None where no producer said.
    """
    born = message.born_timestamp
    return time_ns() / 1e9 - born / 1e3 if born else None


def _poll(consumer: Any) -> Poll | None:
    try:
        instrumentation = instrumentation_of(consumer)
        if instrumentation is None:
            return None
        # A consumer of several topics polls one after the other, and does not tell which.
        topics = consumer.topics
        return Poll(instrumentation, state_of(consumer), next(iter(topics)) if len(topics) == 1 else None)
    except Exception:  # noqa: BLE001
        internal_error("start of a receive")
        return None


def _settlement(
    name: str, consumer: Any, message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Operation | None:
    """The span of a settlement: where there is nothing around it, it is part of the message's trace."""
    try:
        instrumentation = instrumentation_of(consumer)
        if instrumentation is None:
            return None
        state = state_of(consumer)
        parent = get_current()
        context = read(message, parent).context
        links = () if context is None else (Link(get_current_span(context).get_span_context()),)
        if context is not None and not get_current_span(parent).get_span_context().is_valid:
            parent = context
        labels = state.labels(name, "settle", message.topic)
        operation = Operation(instrumentation, labels, SpanKind.CLIENT, parent, links)
        if operation.span.is_recording():
            details = {**state.details, **of_link(message)}
            duration = args[0] if args else kwargs.get("invisible_duration")
            if isinstance(duration, int | float):
                details[INVISIBLE_DURATION] = duration
            operation.span.set_attributes(details)
    except Exception:  # noqa: BLE001
        internal_error("start of a settlement")
        return None
    return operation
