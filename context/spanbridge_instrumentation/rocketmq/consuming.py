"""Messages that are polled for: ``receive``, settlements, and what ``process(message)`` needs to know."""

from __future__ import annotations

from functools import partial
from time import time_ns
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, SpanKind, get_current_span

from spanbridge_instrumentation._shared.delivery import Delivery, Details
from spanbridge_instrumentation._shared.safety import internal_error

from .active import (
    NOBODY,
    RECEIVED,
    Received,
    RocketMQInstrumentation,
    any_instrumentation,
    instrumentation_of,
    instrumentation_of_state,
    state_of,
)
from .attributes import INVISIBLE_DURATION, PROBLEM, Attributes, of_incoming, of_link
from .carriers import TRACE_CONTEXTS, read
from .operations import Operation, Original, call, watch


def replace_settlement(name: str, original: Original) -> Original:
    """``SimpleConsumer.ack``, ``change_invisible_duration`` and their asynchronous forms.

    The asynchronous ones return nothing in the releases so far, so that their span can only end when the request has
    been handed over; of one that returns a future, it ends with that.
    """

    def settle(consumer: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        operation = _settlement(name, consumer, message, args, kwargs)
        result = call(operation, original, consumer, message, *args, **kwargs)
        if operation is not None and name == "ack":  # a longer hold is none, and what is given back is soon let go of
            received = RECEIVED.get(message)
            if received is not None:
                received.settle()
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


def describe(message: Any, ambient: Context) -> Delivery | None:
    """What ``process(message)`` needs of a message that was received."""
    received = RECEIVED.get(message)
    if received is None:
        instrumentation = any_instrumentation()
        return None if instrumentation is None else delivery(instrumentation, _FROM_NOBODY, message, ambient)
    instrumentation = instrumentation_of_state(received.state, ambient)
    if instrumentation is None:
        return None
    return delivery(instrumentation, received, message, ambient, polled=True)


def delivery(
    instrumentation: RocketMQInstrumentation,
    received: Received,
    message: Any,
    ambient: Context,
    *,
    polled: bool = False,
) -> Delivery:
    """What is said of a message that is about to be processed, in the current context, which is given.

    ``polled``: it counts as in flight until it is acknowledged, whether it is being processed or not.
    """
    found = read(message, ambient, received.brought)
    hook = instrumentation.options.consume_hook
    return Delivery(
        instrumentation.telemetry,
        received.state.destination("process", "process", message.topic),
        found.context,
        partial(_details, message, found.problem, received.link),
        ambient=ambient,
        creation=found.span,
        received=received.span,
        hook=None if hook is None else lambda span: hook(span, message),
        delay=_delay(message),
        held=not polled,
    )


_FROM_NOBODY: Final = Received(NOBODY)


def _details(message: Any, problem: str | None, link: Attributes | None) -> Details:
    if link is None:
        link = of_link(message)
    attributes = of_incoming(message, link)
    if problem is not None:
        attributes[PROBLEM] = problem
    return Details(attributes, link)


def _delay(message: Any) -> float | None:
    """Seconds since the message was born: since its producer sent it, or since it arrived at the gateway.

    It stays the same when the message is delivered again. None where no producer said.
    """
    born = message.born_timestamp
    return time_ns() / 1e9 - born / 1e3 if born else None


def _settlement(
    name: str, consumer: Any, message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Operation | None:
    """The span of a settlement: where there is nothing around it, it is part of the message's trace."""
    try:
        parent = get_current()
        instrumentation = instrumentation_of(consumer, parent)
        if instrumentation is None:
            return None
        state = state_of(consumer)
        context = read(message, parent).context
        links = () if context is None else (Link(get_current_span(context).get_span_context()),)
        if context is not None and not get_current_span(parent).get_span_context().is_valid:
            parent = context
        destination = state.destination(name, "settle", message.topic)
        operation = Operation(instrumentation, destination, SpanKind.CLIENT, parent, links)
        if operation.span.is_recording():
            details = of_link(message)
            duration = args[0] if args else kwargs.get("invisible_duration")
            if isinstance(duration, int | float):
                details[INVISIBLE_DURATION] = duration
            operation.span.set_attributes(details)
    except Exception:  # noqa: BLE001
        internal_error("start of a settlement")
        return None
    return operation
