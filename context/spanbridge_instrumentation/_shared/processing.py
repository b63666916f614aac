"""The ``process`` span: around a callback that the library calls, or around a block of user code.

A span for one message is a child of the message's creation context and links to it; a span for several has a link to
each and is a child of none of them (messaging spans convention, "Consumer spans").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import Any, Final

from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from . import semconv
from .safety import call_hook, end_span, error_type, internal_error, text_of
from .telemetry import Telemetry

_CURRENT: Final = "spanbridge-processing"


@dataclass(slots=True, kw_only=True)
class Delivery:
    """What an instrumentor says of one message that is about to be processed.

    ``name`` is the span's name, of low cardinality. ``attributes`` go onto the span at its start, ``labels`` onto the
    metrics. ``context`` holds the message's creation context as remote span (and its baggage), None when it has none.
    ``link_attributes`` tell this message from others of the same batch. ``received`` is the span that brought the
    message, where one did and it is recorded. ``hook`` gets the span when it is recorded.

    ``delay`` is how long the message took until now, in seconds, counted from what ``since`` names; None where nothing
    says. ``held`` is whether the message is in the application's hands for as long as it is processed; false where
    something else keeps count.
    """

    telemetry: Telemetry
    name: str
    attributes: dict[str, AttributeValue]
    labels: dict[str, AttributeValue]
    context: Context | None = None
    link_attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    received: SpanContext | None = None
    hook: Callable[[Span], Any] | None = None
    delay: float | None = None
    since: str = ""
    held: bool = True

    @property
    def creation(self) -> SpanContext | None:
        """The message's creation context, None when it has no valid one."""
        if self.context is None:
            return None
        found = get_current_span(self.context).get_span_context()
        return found if found.is_valid else None


class Processing:
    """One ``process`` operation: ``with``, ``async with``, or :meth:`start` and :meth:`end` around a callback.

    ``batch``: the messages are one batch, however many they are: links only. Nothing raises but the code inside. With
    no deliveries (not instrumented, suppressed) it does nothing and its span is the invalid one. To be used once, in
    one thread or task.
    """

    __slots__ = (
        "_batch",
        "_deliveries",
        "_error",
        "_held",
        "_labels",
        "_messages",
        "_started",
        "_telemetry",
        "_token",
        "span",
    )

    def __init__(
        self, messages: Sequence[object] = (), deliveries: Sequence[Delivery] = (), *, batch: bool = False
    ) -> None:
        self._batch = batch
        self._messages = messages
        self._deliveries = deliveries
        self._telemetry: Telemetry | None = None
        self._held: list[int] = []
        self._labels: dict[str, AttributeValue] = {}
        self._token: Token[Context] | None = None
        self._error: str | None = None
        self._started = 0.0
        self.span: Span = INVALID_SPAN

    # Life

    def start(self) -> Span:
        """Start the span and make it current."""
        if self._deliveries:
            try:
                self._start()
            except Exception:  # noqa: BLE001  whatever it is, the message is to be processed
                internal_error("start of a process span")
        return self.span

    def end(self) -> None:
        """Make the former span current again, end ours and record the metrics. Does nothing the second time."""
        telemetry, self._telemetry = self._telemetry, None
        self._messages = self._deliveries = ()
        if telemetry is None:
            return
        try:
            for token in self._held:
                telemetry.in_flight.remove(token)
            elapsed = perf_counter() - self._started
            labels = self._labels
            if self._error is not None:
                labels = {**labels, semconv.ERROR_TYPE: self._error}
            telemetry.processed(elapsed, labels)  # while the span is current, so that exemplars point to it
        except Exception:  # noqa: BLE001
            internal_error("end of a process span")
        finally:
            if self._token is not None:
                detach(self._token)
            end_span(self.span)

    def fail(self, error: BaseException) -> None:
        """The processing raised ``error``. Leaving on purpose (``SystemExit``, ``GeneratorExit``) is no error."""
        if isinstance(error, Exception):
            self.set_error(error_type(error), text_of(error))
            self._record(error)
        elif isinstance(error, asyncio.CancelledError):
            self.set_error(error_type(error), "cancelled")

    def set_error(self, error: str, description: str | None = None) -> None:
        """The processing failed without an exception: ``error`` is an ``error.type`` of low cardinality."""
        self._error = error
        try:
            if self.span.is_recording():
                self.span.set_attribute(semconv.ERROR_TYPE, error)
                self.span.set_status(Status(StatusCode.ERROR, description))
        except Exception:  # noqa: BLE001
            internal_error("error of a process span")

    def covers(self, message: object) -> bool:
        """Whether this is the running operation on just this message, so that it needs no second span."""
        return self._telemetry is not None and not self._batch and self._messages[0] is message

    # Protocols

    def __enter__(self) -> Span:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._telemetry is not None:
            self.fail(error)
        self.end()

    async def __aenter__(self) -> Span:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    # Inside

    def _start(self) -> None:
        self._started = perf_counter()
        deliveries = self._deliveries
        first = deliveries[0]
        ambient = get_current()
        if not self._batch:
            name, attributes, self._labels = first.name, first.attributes, first.labels
            parent = ambient if first.context is None else first.context
        else:
            name, attributes, self._labels = _common(deliveries)
            parent = ambient
        span = first.telemetry.tracer.start_span(
            name, parent, SpanKind.CONSUMER, attributes, links=_links(deliveries, ambient, parent)
        )
        self.span = span
        self._telemetry = first.telemetry
        self._token = attach(set_value(_CURRENT, self, set_span_in_context(span, parent)))
        self._measure(deliveries)
        if span.is_recording():
            for delivery in deliveries:
                if delivery.hook is not None:
                    call_hook("a consume hook", delivery.hook, span)

    def _measure(self, deliveries: Sequence[Delivery]) -> None:
        """While the span is current, so that exemplars point to it. A batch counts for each of its messages."""
        for delivery in deliveries:
            if delivery.delay is not None:
                labels = {**delivery.labels, semconv.DELAY_SINCE: delivery.since}
                delivery.telemetry.delayed(delivery.delay, labels)
            if delivery.held:
                self._held.append(delivery.telemetry.in_flight.add(delivery.labels))

    def _record(self, error: Exception) -> None:
        try:
            if self.span.is_recording():
                self.span.record_exception(error)
        except Exception:  # noqa: BLE001
            internal_error("exception of a process span")


def current() -> Processing | None:
    """The operation that the calling code is in, if it is in one and that has not ended."""
    found = get_value(_CURRENT)
    return found if isinstance(found, Processing) else None


class Joined(Processing):
    """A block inside the span that its message has already: it brings the span, and leaves its end to the owner.

    What the block raises is told by the owner, whom it reaches unless user code handles it, which is its right.
    """

    __slots__ = ()

    def __init__(self, owner: Processing) -> None:
        super().__init__()
        self.span = owner.span


def _links(deliveries: Sequence[Delivery], ambient: Context, parent: Context) -> list[Link]:
    links = []
    for delivery in deliveries:
        creation = delivery.creation
        if creation is not None:
            links.append(Link(creation, delivery.link_attributes))
    # One poll brings many messages of a batch: one link to it says enough. (Span contexts have no hash.)
    polls = {span.span_id: span for delivery in deliveries if (span := delivery.received) is not None}
    links += [Link(span) for span in polls.values()]
    if parent is not ambient:
        # The message's context took the parent's place; what the thread or task was in must not get lost.
        around = get_current_span(ambient).get_span_context()
        if around.is_valid:
            links.append(Link(around))
    return links


def _common(deliveries: Sequence[Delivery]) -> tuple[str, dict[str, AttributeValue], dict[str, AttributeValue]]:
    """Name, attributes and labels of a batch: what all its messages agree on."""
    first, rest = deliveries[0], deliveries[1:]
    name = first.name if all(other.name == first.name for other in rest) else first.name.partition(" ")[0]
    attributes = _agreed(first.attributes, [other.attributes for other in rest])
    attributes[semconv.BATCH_COUNT] = len(deliveries)
    return name, attributes, _agreed(first.labels, [other.labels for other in rest])


def _agreed(
    first: Mapping[str, AttributeValue], rest: Sequence[Mapping[str, AttributeValue]]
) -> dict[str, AttributeValue]:
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}
