"""The ``process`` helper for code that polls, loops, or hands messages to workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from opentelemetry.context import get_current

from ._shared.current import enabled
from ._shared.handlers import describe
from ._shared.processing import Processing, current

_M = TypeVar("_M")

__all__ = ["process"]


def process(message: _M | Sequence[_M]) -> Processing:
    """The ``process`` span of one message, or of a batch, as a context manager (``with`` and ``async with``).

    ::

        for message in consumer.receive(32, 15):
            with process(message):
                handle(message)

    One message: the span is a child of the context that the message brought, so what the block does is in the sender's
    trace, and the message's baggage is current. A list or tuple of messages: one span with a link to each message's
    context. The block gets the span (``with process(message) as span``). What the block raises is recorded as an error
    and raised on.

    Inside an instrumented callback, ``process`` of the callback's own message gives the span that is there already. In
    the body of a loop that has a span for the message, the block takes that span over, and ends it.
    While the message's instrumentor is not active, or instrumentation is suppressed, there is no span and the
    block runs just the same. Knows messages of paho-mqtt, aiomqtt and rocketmq-python-client.
    """
    ambient = get_current()
    if not enabled(ambient):
        return Processing()
    if isinstance(message, list | tuple):
        return Processing(message, [found for each in message if (found := describe(each, ambient))], batch=True)
    running = current(ambient)
    if running is not None and running.covers(message):
        return running.join()
    found = describe(message, ambient)
    return Processing() if found is None else Processing((message,), (found,))
