"""What an instrumentor says of a message that is about to be processed: what its destination fixes, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, get_current_span
from opentelemetry.util.types import AttributeValue

from . import semconv
from .telemetry import Telemetry

Attributes = Mapping[str, AttributeValue]


class Destination:
    """Name, attributes and labels of one operation on one destination: made once, used for every message.

    ``name`` is the span's name, of low cardinality; ``labels`` are those of metrics; ``attributes`` go onto the span at
    its start, where samplers see them (messaging spans convention, "Sampling-relevant attributes"). ``since`` is what
    delays are counted from. None of it is to be changed.
    """

    __slots__ = ("attributes", "delay_labels", "labels", "name")

    def __init__(self, name: str, labels: Attributes, attributes: Attributes | None = None, *, since: str = "") -> None:
        self.name: Final = name
        self.labels: Final = labels
        self.attributes: Final = labels if attributes is None else attributes
        self.delay_labels: Final[Attributes] = {**labels, semconv.DELAY_SINCE: since}


class Details(NamedTuple):
    """What is said of one message: on its span, and on a link to it, which tells it from others of the same batch."""

    span: Attributes
    link: Attributes


NO_DETAILS: Final = Details({}, {})


class Delivery:
    """One message that is about to be processed.

    ``context`` holds the message's creation context as remote span (and its baggage), None when it has none.
    ``creation`` is that span's context, ``ambient`` the current context: for who has asked for them already.
    ``details`` is asked for recorded spans only. ``received`` is the span that brought the message, where one did and
    it is recorded. ``hook`` gets the span when it is recorded.

    ``delay`` is how long the message took until now, in seconds; None where nothing says. ``held`` is whether the
    message is in the application's hands for as long as it is processed; false where something else keeps count.
    """

    __slots__ = (
        "ambient",
        "context",
        "creation",
        "delay",
        "destination",
        "details",
        "held",
        "hook",
        "received",
        "telemetry",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        destination: Destination,
        context: Context | None = None,
        details: Callable[[], Details] | None = None,
        *,
        ambient: Context | None = None,
        creation: SpanContext | None = None,
        received: SpanContext | None = None,
        hook: Callable[[Span], Any] | None = None,
        delay: float | None = None,
        held: bool = True,
    ) -> None:
        self.telemetry = telemetry
        self.destination = destination
        self.context = context
        self.details = details
        self.ambient = ambient
        self.creation = creation if creation is not None or context is None else _span_of(context)
        self.received = received
        self.hook = hook
        self.delay = delay
        self.held = held

    def described(self) -> Details:
        """Its details."""
        return NO_DETAILS if self.details is None else self.details()


def _span_of(context: Context) -> SpanContext | None:
    found = get_current_span(context).get_span_context()
    return found if found.is_valid else None
