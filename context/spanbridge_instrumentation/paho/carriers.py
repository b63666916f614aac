"""Trace contexts in paho's messages: v5 user properties, and for MQTT 3.1.1 what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import get_current_span
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers

from spanbridge_context import (
    TraceContext,
    inject_json,
    inject_topic,
    inject_user_properties,
    split_user_properties,
)
from spanbridge_context.payload import split_json
from spanbridge_context.topic import split_topic
from spanbridge_instrumentation._shared.baggage import extract_global, inject_global
from spanbridge_instrumentation._shared.context import NO_CONTEXT, MessageContext, arrived

Pairs = list[tuple[str, str]]

_USER_PROPERTY = b"\x26"


def _packed_name(name: str) -> bytes:
    raw = name.encode()
    return _USER_PROPERTY + len(raw).to_bytes(2, "big") + raw


_PACKED_NAMES = {name: _packed_name(name) for name in ("tp", "traceparent")}
_EMPTY = Properties(PacketTypes.PUBLISH).__dict__  # type: ignore[no-untyped-call]


class TopicWithContext(str):
    """A topic that knows which context its message came with, in whatever message object it ends up.

    For MQTT 3.1.1, where reading the context takes it out of topic or payload: client libraries on top of paho make
    their own message objects, but all copy the topic.
    """

    __slots__ = ("found",)
    found: TraceContext | None


class TopicBytesWithContext(bytes):
    """The form in which paho keeps the topic; ``MQTTMessage.topic`` decodes it with each access."""

    found: TraceContext | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        text = TopicWithContext(super().decode(encoding, errors))
        text.found = self.found
        return text


class _OnlyUserProperties(Properties):
    """For a message that has no properties of its own. paho packs by asking for all 27 by name: ten times slower."""

    def pack(self) -> bytes:
        """MQTT 5.0 sections 2.2.2.2 and 1.5.7: the length, then for each pair the identifier and two strings."""
        packed = b""
        for name, value in self.__dict__["UserProperty"]:
            raw = value.encode()
            packed += (_PACKED_NAMES.get(name) or _packed_name(name)) + len(raw).to_bytes(2, "big") + raw
        if len(packed) < 128:
            return bytes((len(packed),)) + packed
        length: bytes = VariableByteIntegers.encode(len(packed))  # type: ignore[no-untyped-call]
        return length + packed


def user_properties(properties: Properties | None) -> Pairs:
    """The user properties, never None. The list is the object's own: not to be changed."""
    if properties is None:
        return []
    found = properties.__dict__.get("UserProperty")
    return found if isinstance(found, list) else []


def with_user_properties(properties: Properties | None, pairs: Pairs) -> Properties:
    """A copy with other user properties. Assigning ``UserProperty`` appends, and callers reuse their object."""
    copy: Properties
    if properties is None:
        source, copy = _EMPTY, object.__new__(_OnlyUserProperties)
    else:
        source, copy = properties.__dict__, object.__new__(type(properties))
    copy.__dict__.update(source, UserProperty=pairs)
    return copy


def written_by_propagator(properties: Properties | None, context: TraceContext, span: Context) -> Properties | None:
    """A copy of the properties with what the global propagators write. ``span``: as OpenTelemetry has it."""
    carrier = inject_global(span)
    if not carrier:
        return properties
    pairs = user_properties(properties)
    return with_user_properties(properties, [*_without_context(pairs, context), *carrier.items()])


def _without_context(pairs: Pairs, context: TraceContext) -> Pairs:
    """What is left without the global propagator's fields, and without a context in W3C's or the compact form, which
    would be read before the propagator's.
    """
    if not pairs:
        return []
    fields = propagate.get_global_textmap().fields
    stale = set(pairs).difference(inject_user_properties(pairs, context, "w3c"))
    return [pair for pair in pairs if pair[0] not in fields and (pair not in stale or pair[0] == "baggage")]


def written_v311(topic: str, payload: Any, retain: bool, context: TraceContext, carrier: str) -> tuple[str, Any]:
    """Topic and payload with the context in one of them."""
    if carrier == "topic":
        return inject_topic(topic, context, retain), payload
    if carrier == "json" and isinstance(payload, str | bytes | bytearray):
        raw = payload.encode() if isinstance(payload, str) else bytes(payload)
        changed = inject_json(raw, context)
        return topic, payload if changed == raw else changed
    return topic, payload


def restore_v311(message: Any, carrier: str) -> None:
    """Give a received message back the topic and payload that were published, and remember its context."""
    if carrier == "topic":
        plain, found, _ = split_topic(message.topic)
        if plain != message.topic:
            _remember(message, plain, found)
    elif carrier == "json":
        payload, found, _ = split_json(bytes(message.payload))
        if found is not None:
            message.payload = payload
            _remember(message, message.topic, found)


def read(topic: str, properties: Properties | None, base: Context, form: str) -> MessageContext:
    """The context that a message came with, on top of ``base``."""
    if type(topic) is TopicWithContext:
        return NO_CONTEXT if topic.found is None else arrived(topic.found, base)
    pairs = user_properties(properties)
    if not pairs:
        return NO_CONTEXT
    found, problem, _ = split_user_properties(pairs)
    if found is not None:
        return arrived(found, base, problem)
    if form == "propagator":
        context = extract_global(_grouped(pairs), base, _GETTER)
        if get_current_span(context) is not get_current_span(base):
            return MessageContext(context)
    return MessageContext(problem=problem)


def _remember(message: Any, topic: str, found: TraceContext | None) -> None:
    carried = TopicBytesWithContext(topic.encode())
    carried.found = found
    message.topic = carried


def _grouped(pairs: Pairs) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name.lower(), []).append(value)
    return grouped


class _PairsGetter(Getter[Mapping[str, list[str]]]):
    def get(self, carrier: Mapping[str, Sequence[str]], key: str) -> list[str] | None:
        found = carrier.get(key.lower())
        return None if found is None else list(found)

    def keys(self, carrier: Mapping[str, Sequence[str]]) -> list[str]:
        return list(carrier)


_GETTER = _PairsGetter()
