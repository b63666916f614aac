"""``SimpleConsumer.receive``: a span made afterwards, and messages that a loop can walk."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, time_ns
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, Span, SpanKind, get_current_span

from spanbridge_instrumentation._shared import semconv
from spanbridge_instrumentation._shared.current import SPAN_KEY
from spanbridge_instrumentation._shared.delivery import Destination
from spanbridge_instrumentation._shared.safety import call_hook, error_type, internal_error

from .active import RECEIVED, Received, RocketMQClientState, RocketMQInstrumentation, instrumentation_of, state_of
from .attributes import WAITED, Attributes, of_link
from .carriers import Brought, read
from .looping import for_loops
from .operations import Original, fail, watch

_STORED: Final = "_Message__store_timestamp"
"""When the broker stored a message, in ms. The client has no public name for it; without it the span is the call."""


class Poll:
    """One ``receive``. Its span is made when it is over: links are given at a span's start, and idle polls make none.

    The span begins when there was something to receive: the wait of a long poll is in the metric, and the attribute
    ``spanbridge.receive.waited``. https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ ("Consumer
    spans"); docs/adr/0165
    """

    __slots__ = ("_instrumentation", "_parent", "_started", "_started_ns", "_state", "_topic")

    def __init__(
        self,
        instrumentation: RocketMQInstrumentation,
        state: RocketMQClientState,
        topic: str | None,
        parent: Context,
    ) -> None:
        self._instrumentation = instrumentation
        self._state = state
        self._topic = topic
        self._parent = parent
        self._started_ns = time_ns()
        self._started = perf_counter()

    def received(self, messages: Any) -> None:
        """It brought these messages, perhaps none."""
        try:
            elapsed = perf_counter() - self._started
            telemetry = self._instrumentation.telemetry
            if not messages:
                telemetry.operated(elapsed, self._destination(self._topic).labels)
                return
            destination = self._destination(messages[0].topic)
            each = [self._read(message) for message in messages]
            span = self._recorded(destination, messages, each, elapsed)
            context = Context({**self._parent, SPAN_KEY: span})
            found = span.get_span_context()
            of_poll = found if found.trace_flags.sampled else None
            for message, received in zip(messages, each, strict=True):
                received.span = of_poll
                if RECEIVED.put(message, received):
                    labels = self._state.destination("process", "process", message.topic).labels
                    received.hold(telemetry.in_flight, labels)
            telemetry.operated(elapsed, destination.labels, context)
            telemetry.consumed(len(messages), destination.labels)
            if span.is_recording():
                call_hook("a receive hook", self._instrumentation.options.receive_hook, span, messages)
            span.end(self._ended_ns(elapsed))
        except Exception:  # noqa: BLE001  the messages are handed over
            internal_error("the end of a receive")

    def handed_over(self, messages: Any) -> Any:
        """The messages as the application gets them."""
        return for_loops(self._instrumentation, messages)

    def failed(self, error: BaseException) -> None:
        """It raised. Giving up an idle poll on purpose (Ctrl-C, a cancelled future) is no error and makes no span."""
        try:
            if not isinstance(error, Exception):
                return
            elapsed = perf_counter() - self._started
            destination = self._destination(self._topic)
            span = self._span(destination, [], {}, self._started_ns)
            fail(span, error)
            failed = {**destination.labels, semconv.ERROR_TYPE: error_type(error)}
            context = Context({**self._parent, SPAN_KEY: span})
            self._instrumentation.telemetry.operated(elapsed, failed, context)
            span.end(self._ended_ns(elapsed))
        except Exception:  # noqa: BLE001
            internal_error("a failed receive")

    def _destination(self, topic: str | None) -> Destination:
        return self._state.destination("receive", "receive", topic)

    def _read(self, message: Any) -> Received:
        """What is needed of a message here, and again when it is processed."""
        brought = Brought(message)
        return Received(self._state, None, brought, of_link(message))

    def _recorded(
        self, destination: Destination, messages: Sequence[Any], each: Sequence[Received], elapsed: float
    ) -> Span:
        """The span of a poll that brought messages."""
        links = []
        for message, received in zip(messages, each, strict=True):
            span = received.brought.span if received.brought is not None else None
            if span is None:
                context = read(message, self._parent, received.brought).context
                span = None if context is None else get_current_span(context).get_span_context()
            if span is not None:
                links.append(Link(span, received.link))
        # By the broker's clock, which may be another: never before the call, never after its end.
        stored_ns = 1_000_000 * (getattr(messages[0], _STORED, None) or 0)
        start_ns = min(max(self._started_ns, stored_ns), self._ended_ns(elapsed))
        attributes: Attributes = {semconv.BATCH_COUNT: len(messages)}
        if start_ns > self._started_ns:
            attributes[WAITED] = (start_ns - self._started_ns) / 1e9
        return self._span(destination, links, attributes, start_ns)

    def _span(self, destination: Destination, links: list[Link], more: Attributes, start_ns: int) -> Span:
        return self._instrumentation.telemetry.tracer.start_span(
            destination.name,
            self._parent,
            SpanKind.CLIENT,
            {**destination.attributes, **more},
            links=links,
            start_time=start_ns,
        )

    def _ended_ns(self, elapsed: float) -> int:
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
        return poll.handed_over(messages)

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


def _poll(consumer: Any) -> Poll | None:
    try:
        parent = get_current()
        instrumentation = instrumentation_of(consumer, parent)
        if instrumentation is None:
            return None
        # A consumer of several topics polls one after the other, and does not tell which.
        topics = consumer.topics
        return Poll(instrumentation, state_of(consumer), next(iter(topics)) if len(topics) == 1 else None, parent)
    except Exception:  # noqa: BLE001
        internal_error("start of a receive")
        return None
