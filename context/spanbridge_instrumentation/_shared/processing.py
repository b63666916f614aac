"""The ``process`` span: around a callback that the library calls, or around a block of user code.

A span for one message is a child of the message's creation context and links to it; a span for several has a link to
each and is a child of none of them (messaging spans convention, "Consumer spans").
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode, TraceFlags, get_current_span
from opentelemetry.util.types import AttributeValue

from . import semconv
from .current import SPAN_KEY, is_sampled
from .delivery import Attributes, Delivery
from .safety import call_hook, end_span, error_type, internal_error, text_of
from .telemetry import Telemetry

_CURRENT: Final = "spanbridge-processing"


class Processing:
    """One ``process`` operation: ``with``, ``async with``, or :meth:`start` and :meth:`end` around a callback.

    ``batch``: the messages are one batch, however many they are: links only. Nothing raises but the code inside. With
    no deliveries (not instrumented, suppressed) it does nothing and its span is the invalid one. To be used once, in
    one thread or task.
    """

    __slots__ = (
        "_batch",
        "_context",
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
        self._held: Sequence[int] = ()
        self._error: str | None = None
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
            labels = self._labels
            if self._error is not None:
                labels = {**labels, semconv.ERROR_TYPE: self._error}
            telemetry.processed(perf_counter() - self._started, labels, self._context)
        except Exception:  # noqa: BLE001
            internal_error("end of a process span")
        finally:
            self._leave()
            end_span(self.span)

    def fail(self, error: BaseException) -> None:
        """The processing raised ``error``. Leaving on purpose (``SystemExit``, ``GeneratorExit``) is no error."""
        if self._telemetry is None:
            return
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

    def holds(self, message: object) -> bool:
        """Whether this is a running operation on a batch that the message is of."""
        return self._telemetry is not None and self._batch and any(each is message for each in self._messages)

    def join(self) -> Processing:
        """For a block inside of the running operation that says what it works on: the same message."""
        return Joined(self)

    # Protocols

    def __enter__(self) -> Span:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        self.end()

    async def __aenter__(self) -> Span:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    # Inside

    def _enter(self, context: Context) -> None:
        """Make the span's context current."""
        self._token = attach(context)

    def _leave(self) -> None:
        """Make current what was before."""
        detach(self._token)

    def _start(self) -> None:
        self._started = perf_counter()
        parent = self._start_batch() if self._batch else self._start_one()
        self._context = context = Context({**parent, SPAN_KEY: self.span, _CURRENT: self})
        self._telemetry = telemetry = self._deliveries[0].telemetry
        self._enter(context)
        # Delay, and what is in the application's hands. A batch counts for each of its messages.
        for delivery in self._deliveries:
            if delivery.delay is not None:
                telemetry.delayed(delivery.delay, delivery.destination.delay_labels, context)
            if delivery.held:
                token = telemetry.in_flight.add(delivery.destination.labels, self._started)
                self._held = (*self._held, token)
            if delivery.hook is not None and self.span.is_recording():
                call_hook("a consume hook", delivery.hook, self.span)

    def _start_one(self) -> Context:
        """Where the parent is sampled the span will be recorded, as a rule: then all is said at its start, which costs
        least. Else the details are added if it turns out to be recorded.
        """
        delivery = self._deliveries[0]
        destination = delivery.destination
        ambient = get_current() if delivery.ambient is None else delivery.ambient
        parent = ambient if delivery.context is None else delivery.context
        self._labels = destination.labels
        creation, start = delivery.creation, delivery.telemetry.tracer.start_span
        sampled = is_sampled(parent) if creation is None else creation.trace_flags & TraceFlags.SAMPLED
        if sampled:
            about, link = delivery.described()
            attributes = {**destination.attributes, **about}
            self.span = start(
                destination.name, parent, SpanKind.CONSUMER, attributes, _links_of_one(delivery, link, ambient)
            )
            return parent
        self.span = span = start(destination.name, parent, SpanKind.CONSUMER, destination.attributes)
        if span.is_recording():
            about, link = delivery.described()
            span.set_attributes(about)
            for each in _links_of_one(delivery, link, ambient):
                span.add_link(each.context, each.attributes)
        return parent

    def _start_batch(self) -> Context:
        """Links are given at the start: they are all that a sampler sees of the messages."""
        ambient = get_current()
        deliveries = self._deliveries
        details = [delivery.described() for delivery in deliveries]
        name, attributes, self._labels = _common(deliveries, [each.span for each in details])
        links = _links(deliveries, [each.link for each in details])
        tracer = deliveries[0].telemetry.tracer
        self.span = tracer.start_span(name, ambient, SpanKind.CONSUMER, attributes, links=links)
        return ambient

    def _record(self, error: Exception) -> None:
        try:
            if self.span.is_recording():
                self.span.record_exception(error)
        except Exception:  # noqa: BLE001
            internal_error("exception of a process span")


def current(ambient: Context | None = None) -> Processing | None:
    """The operation that the calling code is in, if it is in one and that has not ended. ``ambient`` is the current
    context, for who has asked for it already.
    """
    found = (get_current() if ambient is None else ambient).get(_CURRENT)
    return found if isinstance(found, Processing) else None


class Joined(Processing):
    """A block inside the span that its message has already: it brings the span, and leaves its end to the owner.

    What the block raises is told by the owner, whom it reaches unless user code handles it, which is its right.
    """

    __slots__ = ()

    def __init__(self, owner: Processing) -> None:
        super().__init__()
        self.span = owner.span


def _links_of_one(delivery: Delivery, about: Attributes, ambient: Context) -> list[Link]:
    links = [] if delivery.creation is None else [Link(delivery.creation, about)]
    if delivery.received is not None:
        links.append(Link(delivery.received))
    if ambient and delivery.context is not None:
        # The message's context took the parent's place; what the thread or task was in must not get lost.
        around = get_current_span(ambient).get_span_context()
        if around.is_valid:
            links.append(Link(around))
    return links


def _links(deliveries: Sequence[Delivery], attributes: Sequence[Attributes]) -> list[Link]:
    each_with = zip(deliveries, attributes, strict=True)
    links = [Link(each.creation, about) for each, about in each_with if each.creation is not None]
    # One poll brings many messages of a batch: one link to it says enough. (Span contexts have no hash.)
    polls = {span.span_id: span for delivery in deliveries if (span := delivery.received) is not None}
    return links + [Link(span) for span in polls.values()]


def _common(deliveries: Sequence[Delivery], details: Sequence[Attributes]) -> tuple[str, Attributes, Attributes]:
    """Name, attributes and labels of a batch: what all its messages agree on."""
    destinations = [delivery.destination for delivery in deliveries]
    first, rest = destinations[0], destinations[1:]
    name = first.name if all(other.name == first.name for other in rest) else first.name.partition(" ")[0]
    all_attributes = [{**where.attributes, **more} for where, more in zip(destinations, details, strict=True)]
    attributes = _agreed(all_attributes[0], all_attributes[1:])
    attributes[semconv.BATCH_COUNT] = len(deliveries)
    return name, attributes, _agreed(first.labels, [other.labels for other in rest])


def _agreed(
    first: Mapping[str, AttributeValue], rest: Sequence[Mapping[str, AttributeValue]]
) -> dict[str, AttributeValue]:
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}
