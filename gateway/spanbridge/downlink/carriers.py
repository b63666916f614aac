"""Reading the trace context of a RocketMQ message, and writing one into an MQTT message as the downlink asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from spanbridge.core.downlinks import ContextForm
from spanbridge.core.mapping_down import CARRIERS
from spanbridge.core.message import Message
from spanbridge_context import (
    Extracted,
    TraceContextError,
    extract_rocketmq,
    inject_json,
    inject_topic,
    parse_compact,
    parse_traceparent,
)
from spanbridge_context.compact import encode
from spanbridge_context.traceparent import LENGTH, decode

_COMPACT = ContextForm.COMPACT
"""Members of an enumeration are not found as fast."""
IN_PROPERTIES = frozenset({ContextForm.COMPACT, ContextForm.W3C})
"""Forms that are user properties, which MQTT 3.1.1 has not."""


def form_of(form: ContextForm | None, *, v5: bool) -> ContextForm:
    """The form for a version of MQTT: ``compact`` unless another one is asked for, none where there is no place."""
    form = form or ContextForm.COMPACT
    return ContextForm.NONE if form in IN_PROPERTIES and not v5 else form


def add_context(
    user: list[tuple[str, str]], form: ContextForm, traceparent: str, tracestate: str, baggage: str
) -> None:
    """Append a context to user properties. ``traceparent`` is of this gateway's making, or checked. Hot path."""
    if form is _COMPACT:
        user.append(("tp", encode(bytes.fromhex(traceparent.replace("-", "")))))
    else:
        user.append(("traceparent", traceparent))
    if tracestate:
        user.append(("tracestate", tracestate))
    if baggage:
        user.append(("baggage", baggage))


def context_of(message: Message) -> Extracted:
    """The context of a message. Hot path.

    It is asked for once when the message is made into a publication, and once for the link of the ``receive`` span.
    """
    found = message.properties
    parent = found.get("traceparent")
    if parent is None or len(parent) != LENGTH or "tracestate" in found or "baggage" in found:
        return extract_rocketmq(found, message.trace_context)
    return _of_parent(parent)


@lru_cache(maxsize=1024)
def _of_parent(parent: str) -> Extracted:
    """Kept for as long as a few receive calls take: contexts do not change."""
    return extract_rocketmq({"traceparent": parent})


def carried_on(found: Mapping[str, str], trace_context: str | None) -> Sequence[tuple[str, str]]:
    """The user property of a context that goes on as it came; none where there is more than its parent. Hot path.

    What is left out, a parent that does not decode among it, is for :func:`spanbridge_context.extract_rocketmq`.
    """
    parent = found.get("traceparent") or trace_context
    if not parent or "tracestate" in found or "baggage" in found:
        return ()
    try:
        return (("tp", encode(decode(parent))),)
    except TraceContextError:
        return ()


def with_context(  # noqa: PLR0917
    form: ContextForm,
    topic: str,
    payload: bytes,
    traceparent: str,
    tracestate: str,
    retain: bool,
) -> tuple[str, bytes]:
    """Topic and payload with a context in one of them. Where it has no place the message goes without.

    A message to be retained has no suffix: its broker would keep one message for each trace.
    """
    context = parse_traceparent(traceparent)
    if form is ContextForm.TOPIC_SUFFIX:
        return (topic if retain else inject_topic(topic, context)), payload
    return topic, inject_json(payload, context.replace(tracestate=tracestate))


def without_forged(user: Iterable[tuple[str, str]], *, injected: bool) -> list[tuple[str, str]]:
    """User properties without those that a receiver would take for a context of the gateway's.

    What is called like a carrier and is none stays: a ``tp`` that does not decode, and a ``tracestate`` or ``baggage``
    where no context is ``injected`` beside it.
    """
    return [item for item in user if item[0] not in CARRIERS or _is_own(item, injected=injected)]


def _is_own(item: tuple[str, str], *, injected: bool) -> bool:
    name, value = item
    if name == "tp":
        try:
            parse_compact(value)
        except TraceContextError:
            return True
        return False
    return name != "traceparent" and not injected
