"""W3C trace context on MQTT and RocketMQ messages. Standard library only; runs unchanged on MicroPython.

A device puts a context on a message (any MQTT v5 client's user properties are such a list)::

    from spanbridge_context import TraceContext, inject_user_properties

    properties.UserProperty = inject_user_properties([("unit", "C")], TraceContext.new())

A consumer takes it off a RocketMQ message::

    from spanbridge_context import extract_rocketmq

    context, problem = extract_rocketmq(message.properties)

``inject_*`` returns what is sent, and changes nothing that it is given. ``extract_*`` returns the context (None when
there is none) and the problem (None or one of :data:`PROBLEMS`). ``split_*`` also returns the carrier without the
context, for code that forwards the message. No message makes them raise; a :class:`TypeError` says that an argument is
no carrier. docs/wire-format.md is the specification, docs/context-api.md describes every name.
"""

from .baggage import cap_baggage, parse_baggage
from .context import TraceContext, context_from_compact, parse_compact, parse_traceparent
from .errors import PROBLEMS, TraceContextError
from .extracted import Extracted
from .mqtt import extract_user_properties, inject_user_properties, split_user_properties
from .payload import extract_json, inject_json, split_json
from .rocketmq import extract_rocketmq, inject_rocketmq
from .topic import extract_topic, inject_topic, split_topic, suffix_filter
from .tracestate import format_tracestate, normalise_tracestate, parse_tracestate

__all__ = [
    "PROBLEMS",
    "Extracted",
    "TraceContext",
    "TraceContextError",
    "cap_baggage",
    "context_from_compact",
    "extract_json",
    "extract_rocketmq",
    "extract_topic",
    "extract_user_properties",
    "format_tracestate",
    "inject_json",
    "inject_rocketmq",
    "inject_topic",
    "inject_user_properties",
    "normalise_tracestate",
    "parse_baggage",
    "parse_compact",
    "parse_traceparent",
    "parse_tracestate",
    "split_json",
    "split_topic",
    "split_user_properties",
    "suffix_filter",
]
