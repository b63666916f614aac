"""A RocketMQ message as an MQTT message: the inverse of :mod:`spanbridge.core.mapping`.

What came up from MQTT comes down as it was, but for the topic, which is the downlink's to choose. What a RocketMQ
producer wrote comes down with its properties as user properties, under their own names.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spanbridge.core import mapping
from spanbridge.core.cache import Generations
from spanbridge.core.downlinks import Away, Downlink
from spanbridge.core.mapping import Unroutable
from spanbridge.core.message import Message, Publish
from spanbridge.core.template import MessageScope
from spanbridge.core.text import quoted

CARRIERS = frozenset({"traceparent", "tracestate", "baggage", "tp"})
"""Properties that carry a trace context. It is read from them and written anew; they are no user's."""

_FIXED = CARRIERS | {
    "mqtt.topic", "mqtt.qos", "mqtt.retain", "mqtt.empty", mapping.SOURCE, mapping.PATH, "TRACE_CONTEXT",
}  # fmt: skip
"""Properties that are read by name: they say something of the PUBLISH, of its way or of its trace."""
_FIELDS = frozenset({
    "mqtt.expiry", "mqtt.payload-format", "mqtt.correlation-data", "mqtt.content-type", "mqtt.response-topic",
})  # fmt: skip
"""Properties that stand for MQTT 5 properties of the PUBLISH. One that cannot be read stays a user property."""

_USER = re.compile(r"mqtt\.user(?:\[([1-9][0-9]{0,5})\])?\.(.*)\Z", re.DOTALL)
_NO_CHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_ILLEGAL = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{_NO_CHARACTERS}]")
_MOST_BYTES = 65_535
_LONGEST_EXPIRY = 2**32 - 1
_LONGEST_KNOWN = 128
_SECOND = 1_000_000_000


class Place(NamedTuple):
    """Where a property goes: ``user`` is the name of a user property, ``nth`` which of that name it is.

    ``user`` None means that it is no user property; ``field`` that it stands for a property of the PUBLISH, ``legal``
    that MQTT can carry the name.
    """

    user: str | None
    nth: int = 1
    field: bool = False
    legal: bool = True


class Properties5(NamedTuple):
    """What a message's properties are in MQTT 5.0: ``user`` properties in order, and ``fields`` by their names.

    ``dropped`` counts those that MQTT cannot carry, ``carriers`` those of ``user`` that are called like a carrier.
    """

    user: list[tuple[str, str]]
    fields: dict[str, str] | None = None
    dropped: int = 0
    carriers: int = 0


_places: Generations[str, Place] = Generations(4096)
"""Where properties go, by their names: producers use the same ones again and again."""


def topic(downlink: Downlink, message: Message) -> str:
    """The MQTT topic of a message.

    :raises Unroutable: the template, or a field of it, came out empty (``no_topic``), or as what is no topic name
        (``bad_topic``: MQTT 5.0 section 4.7; brokers end the connection over control characters, section 1.5.4).
    """
    scope = MessageScope(message)
    name = downlink.publish.render(scope)
    where = f"downlink {downlink.name!r}: publish {downlink.publish.text!r}"
    if not name:
        raise Unroutable(f"{where} is empty for this message", "no_topic")
    for field in downlink.publish.fields:
        if not field.value(scope):  # an empty level is legal, but nobody means it
            raise Unroutable(f"{where}: this message has no {field.kind} {field.name!r}, and no default", "no_topic")
    if "+" in name or "#" in name:
        raise Unroutable(f"{where} gives {quoted(name)}, which has a wildcard", "bad_topic")
    if not is_text(name):
        raise Unroutable(f"{where} gives {quoted(name)}, which has a character that MQTT refuses", "bad_topic")
    if len(name) * 4 > _MOST_BYTES and len(name.encode()) > _MOST_BYTES:
        raise Unroutable(f"{where} gives a topic of more than {_MOST_BYTES} bytes", "bad_topic")
    return name


def flags(downlink: Downlink, message: Message) -> tuple[int, bool]:
    """QoS and RETAIN: what the message says, else what the downlink does. A message kept for absent devices retains."""
    said = message.properties.get("mqtt.qos")
    qos = int(said) if said in {"0", "1", "2"} else downlink.qos
    retain = message.properties.get("mqtt.retain")
    kept = retain == "true" if retain in {"true", "false"} else downlink.retain
    return qos, kept or downlink.away is Away.RETAIN


def expires_ns(downlink: Downlink, message: Message) -> int | None:
    """When a message is no longer wanted, in Unix time (ns); None for never.

    Its seconds count from when its producer made it, or from when a delayed message was due: not from its delivery,
    or a command would be as good as new after an hour in RocketMQ.
    """
    seconds = _number(message.properties.get("mqtt.expiry"), _LONGEST_EXPIRY)
    if seconds is None:
        seconds = downlink.expiry
    if seconds is None:
        return None
    since = message.born_ns or message.stored_ns or message.received_ns
    if message.delivery_timestamp_ms is not None:
        since = max(since, message.delivery_timestamp_ms * 1_000_000)
    return since + seconds * _SECOND


def payload(message: Message) -> bytes:
    """The payload, byte for byte. RocketMQ refuses empty bodies: one zero byte stands for none."""
    if message.body == mapping.EMPTY_BODY and message.properties.get("mqtt.empty") == "true":
        return b""
    return message.body


def properties(found: Mapping[str, str]) -> Properties5:
    """The properties of a message beside those of its trace context and its way. Hot path."""
    user: list[tuple[str, str]] = []
    fields: dict[str, str] | None = None
    numbered: list[tuple[str, int, str]] | None = None
    dropped = carriers = 0
    known = _places.young
    for name, value in found.items():
        place = known.get(name) or _place(name)
        own = place.user
        if own is None:
            if not place.field:
                continue
            if is_text(value):
                fields = fields or {}
                fields[name] = value
            else:
                dropped += 1
        elif not place.legal or not (value.isprintable() or is_text(value)):
            dropped += 1
        elif place.nth == 1:
            user.append((own, value))
            carriers += own in CARRIERS
        else:
            numbered = numbered or []
            numbered.append((own, place.nth, value))
    if numbered is not None:
        user = _in_order(user, numbered)
        carriers = sum(name in CARRIERS for name, _ in user)
    return Properties5(user, fields, dropped, carriers)


def publish(  # noqa: PLR0917
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool,
    user: list[tuple[str, str]],
    fields: Mapping[str, str] | None,
) -> Publish:
    """The PUBLISH, without an expiry, of which time takes away. ``user`` gains the ``fields`` that cannot be read."""
    made = Publish(topic, payload, qos, retain, user)
    if fields is not None:
        for name, value in fields.items():
            if not _fill(made, name, value):
                user.append((name, value))
    return made


def passed(found: Mapping[str, str], gateway: str) -> str:
    """The gateways that a message has passed, this one included.

    A message that this gateway brought up may come down through it, to another broker. It is refused on its way up
    again, where the path tells that it has been here (:func:`spanbridge.core.mapping.passed_gateways`).
    """
    path = found.get(mapping.PATH)
    before = None if path is None else mapping.passed_before([(mapping.PATH, path)])
    if before is None:
        return gateway
    return before if gateway in before.split(",") else f"{before},{gateway}"


def is_text(text: str) -> bool:
    """Whether MQTT brokers take a string: no control characters, surrogates or non-characters (MQTT 5.0, 1.5.4)."""
    return text.isprintable() or not _ILLEGAL.search(text)


def _place(name: str) -> Place:
    place = _places.get(name)
    if place is None:
        place = _find_place(name)
        if len(name) <= _LONGEST_KNOWN:
            _places.put(name, place)
    return place


def _find_place(name: str) -> Place:
    if name in _FIXED:
        return Place(None)
    if name in _FIELDS:
        return Place(None, field=True)
    numbered = _USER.match(name)
    own, nth = (numbered[2], int(numbered[1] or 1)) if numbered is not None else (name, 1)
    return Place(own, nth, legal=is_text(own) and len(own.encode("utf-8", "replace")) <= _MOST_BYTES)


def _in_order(firsts: Sequence[tuple[str, str]], numbered: Sequence[tuple[str, int, str]]) -> list[tuple[str, str]]:
    """User properties of one name in the order of their numbers; RocketMQ keeps no order of its properties."""
    by_name: dict[str, list[tuple[int, str]]] = {}
    for name, value in firsts:
        by_name.setdefault(name, []).append((1, value))
    for name, nth, value in numbered:
        by_name.setdefault(name, []).append((nth, value))
    return [(name, value) for name, values in by_name.items() for _, value in sorted(values, key=_nth)]


def _nth(item: tuple[int, str]) -> int:
    return item[0]


def _fill(made: Publish, name: str, value: str) -> bool:
    """Set the property of the PUBLISH that ``name`` stands for; False when the value is not one."""
    match name:
        case "mqtt.expiry":
            return _number(value, _LONGEST_EXPIRY) is not None
        case "mqtt.payload-format":
            made.payload_format = _number(value, 1)
            return made.payload_format is not None
        case "mqtt.correlation-data":
            made.correlation_data = _decoded(value)
            return made.correlation_data is not None
        case "mqtt.content-type":
            made.content_type = value
            return True
        case _:
            named = value and "+" not in value and "#" not in value  # MQTT 5.0 section 3.3.2.3.5
            made.response_topic = value if named else None
            return bool(named)


def _number(text: str | None, most: int) -> int | None:
    if not text or len(text) > 10 or not (text.isascii() and text.isdigit()):
        return None
    return number if (number := int(text)) <= most else None


def _decoded(text: str) -> bytes | None:
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are both of it
        return None
    return data if len(data) <= _MOST_BYTES else None
