"""User properties of a RocketMQ message as a carrier: the names that OpenTelemetry's instrumentations read."""

from . import traceparent
from .context import TraceContext, make_of
from .errors import TraceContextError, wrong_type
from .extracted import Extracted
from .mqtt import complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TRACE_CONTEXT = "TRACE_CONTEXT"
"""RocketMQ's own property of that meaning (its gRPC form: the system property ``trace_context``)."""


def inject_rocketmq(properties: "Mapping[str, str]", context: TraceContext) -> dict[str, str]:
    """The user properties with the context in them. The mapping given is not changed.

    A context already there is replaced, baggage included.

    :raises TypeError: the properties are not a mapping.
    """
    result = dict(_mapping(properties))
    if result:
        for name in ("traceparent", "tracestate", "baggage"):
            result.pop(name, None)
    result["traceparent"] = context.traceparent
    if context.tracestate:
        result["tracestate"] = context.tracestate
    if context.baggage:
        result["baggage"] = context.baggage
    return result


def extract_rocketmq(properties: "Mapping[str, str]", trace_context: "str | None" = None) -> Extracted:
    """The context of a message: ``traceparent``, else RocketMQ's own ``trace_context``. No properties make it raise.

    :param trace_context: the system property of that name, for who has it.
    :raises TypeError: the properties are not a mapping.
    """
    if type(properties) is not dict:
        properties = _mapping(properties)
    try:
        parent = properties.get("traceparent") or trace_context or properties.get(TRACE_CONTEXT)
        if not parent:
            return Extracted(None, None)
        raw = traceparent.decode(parent)
        tracestate, baggage = properties.get("tracestate"), properties.get("baggage")
        if not tracestate and not baggage:  # as most messages have it
            return Extracted(make_of(raw), None)
        context, problem = complete(raw, tracestate or "", baggage or "")
        return Extracted(context, problem)
    except TraceContextError as error:
        return Extracted(None, error.problem)


def _mapping(properties: "Mapping[str, str] | None") -> "Mapping[str, str]":
    if properties is None:
        return {}
    if not hasattr(properties, "get") or not hasattr(properties, "keys"):
        raise wrong_type("properties", "a mapping", properties)
    return properties
