"""User properties of a RocketMQ message as a carrier: the names that OpenTelemetry's instrumentations read."""

from . import traceparent
from .context import TraceContext
from .errors import TraceContextError
from .mqtt import Extracted, complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

TRACE_CONTEXT = "TRACE_CONTEXT"
"""RocketMQ's own property of that meaning (its gRPC form: the system property ``trace_context``)."""


def inject_rocketmq(properties: "MutableMapping[str, str]", context: TraceContext) -> None:
    """Put the context into a message's user properties, in place of one that is there, baggage included."""
    properties["traceparent"] = context.traceparent
    if context.tracestate:
        properties["tracestate"] = context.tracestate
    elif "tracestate" in properties:
        del properties["tracestate"]
    if context.baggage:
        properties["baggage"] = context.baggage
    elif "baggage" in properties:
        del properties["baggage"]


def extract_rocketmq(properties: "Mapping[str, str]", trace_context: "str | None" = None) -> Extracted:
    """The context of a message: ``traceparent``, else RocketMQ's own ``trace_context``. Never raises."""
    try:
        parent = properties.get("traceparent") or trace_context or properties.get(TRACE_CONTEXT)
        if not parent:
            return Extracted(None, None)
        context, problem = complete(
            traceparent.decode(parent), properties.get("tracestate") or "", properties.get("baggage") or ""
        )
        return Extracted(context, problem)
    except TraceContextError as error:
        return Extracted(None, error.problem)
    except (TypeError, AttributeError):
        return Extracted(None, None)
