"""An MQTT message as a RocketMQ message: its destination, its properties, its body.

The mapping is invertible: what goes up and comes down again is the same message (docs/delivery.md).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from spanbridge.core import rocketmq_rules as rules
from spanbridge.core.cache import Generations
from spanbridge.core.message import Destination, Publish
from spanbridge.core.routes import Route
from spanbridge.core.template import Scope, Template
from spanbridge.core.text import quoted

PATH = "spanbridge.path"
"""Property that lists the gateways a message has passed, comma-separated, so that none forwards it twice."""

SOURCE = "mqtt.source"
"""Property that names the MQTT connection where a gateway has several."""

EMPTY_BODY = b"\0"
"""RocketMQ refuses empty bodies (MESSAGE_BODY_EMPTY); property ``mqtt.empty`` tells this from a real zero byte."""

MAX_PROPERTIES = rules.MAX_USER_PROPERTIES
MAX_PROPERTY_BYTES = rules.MAX_PROPERTIES_BYTES
FIXED_PROPERTIES = 5
"""Properties that a destination has at most: ``mqtt.topic``, ``.qos``, ``.retain``, ``.source`` and the path."""
_CONTEXT_ROOM = 512
"""Bytes kept free of ``mqtt.topic``, so that a trace context finds room beside it."""
_MAX_PATH = 2048
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999, the last that protobuf's ``Timestamp`` holds: a later one would spoil its whole request."""
_LONGEST_TIME = 32
_LONGEST_KNOWN = 256
"""Bytes of a property that is worth remembering."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ILLEGAL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_PARENT_SIZE = len("traceparent") + 55

_FEW = 24
"""Short user properties that fit into any room that a destination leaves."""

_known: Generations[tuple[str, str], tuple[str, str]] = Generations(4096)
"""User properties as RocketMQ properties, by name and value: devices send the same ones again and again."""


class Unroutable(ValueError):  # noqa: N818 - an outcome, counted under ``reason``, rather than a fault of ours
    """The message has no place to go. ``reason`` is a stable word for the dropped and rejected counters."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Properties(NamedTuple):
    """User properties ready for RocketMQ. ``dropped`` counts those that could not be carried."""

    items: Sequence[tuple[str, str]]
    dropped: int = 0


def destination(route: Route, scope: Scope, fixed: Sequence[tuple[str, str]]) -> Destination:
    """Where a message goes. Fixed by its MQTT topic, QoS and RETAIN flag, and by the user properties in ``scope``.

    ``fixed`` are the properties that all of them share (:func:`fixed_properties`).

    :raises Unroutable: the topic template came out empty, a message group or a delivery timestamp that the route asks
        for is missing, or a delivery timestamp is not a number.
    """
    topic = _sanitised(route.topic, scope, rules.sanitise_topic)
    if not topic:
        raise Unroutable(f"{_where(route, 'topic', route.topic)} is empty for this message", "no_topic")
    group = _sanitised(route.message_group, scope, rules.sanitise_group)
    if group is None and route.message_group is not None:
        # Without it the message would not be FIFO, and the topic would refuse it together with those behind it.
        raise Unroutable(f"{_where(route, 'message_group', route.message_group)} is empty", "no_message_group")
    return Destination(
        topic=topic,
        tag=_sanitised(route.tag, scope, rules.sanitise_tag),
        keys=tuple(key for key in (_sanitised(template, scope, rules.sanitise_key) for template in route.keys) if key),
        group=group,
        delivery_timestamp_ms=_timestamp(route, scope),
        properties=tuple(fixed),
    )


def fixed_properties(
    topic: str, qos: int, path: str, source: str | None = None, *, retain: bool = False
) -> tuple[list[tuple[str, str]], int]:
    """The properties that a topic and its flags fix, and how many of them RocketMQ cannot carry.

    ``source`` names the MQTT connection where there are several.
    """
    fixed = [("mqtt.topic", topic), ("mqtt.qos", str(qos)), (PATH, path)]
    if retain:
        fixed.append(("mqtt.retain", "true"))
    if source is not None:
        fixed.append((SOURCE, source))
    used = sum(len(name) + _size(value) for name, value in fixed[1:]) + len("mqtt.topic")
    legal = is_legal(fixed[0]) and used + _size(topic) <= MAX_PROPERTY_BYTES - _CONTEXT_ROOM
    return (fixed, 0) if legal else (fixed[1:], 1)


def _where(route: Route, setting: str, template: Template) -> str:
    return f"route {route.name!r}: {setting} {template.text!r}"


def _sanitised(template: Template | None, scope: Scope, sanitise: Callable[[str], str | None]) -> str | None:
    """What devices name, in RocketMQ's alphabet. What the configuration spells out was checked there, and stays."""
    text = _optional(template, scope)
    if text is None or template is None or not template.fields:
        return text
    return sanitise(text)


def _optional(template: Template | None, scope: Scope) -> str | None:
    return (template.render(scope) or None) if template is not None else None


def _timestamp(route: Route, scope: Scope) -> int | None:
    template = route.delivery_timestamp
    if template is None:
        return None
    text = template.render(scope)
    if not text:
        raise Unroutable(f"{_where(route, 'delivery_timestamp', template)} is empty", "no_delivery_timestamp")
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_TIME or int(text) > _LATEST_MS:
        raise Unroutable(f"delivery_timestamp {quoted(text)} is not Unix time in milliseconds", "bad_timestamp")
    return int(text)


def room(destination: Destination) -> int:
    """Bytes that the rest of a message's properties may take, where RocketMQ counts its tag and keys as well."""
    fixed = (destination.tag or "", *destination.keys, *(text for item in destination.properties for text in item))
    return MAX_PROPERTY_BYTES - sum(map(_size, fixed))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _sizes(items: Iterable[tuple[str, str]]) -> int:
    return sum(_size(name) + _size(value) for name, value in items)


def properties(  # noqa: PLR0917
    publish: Publish,
    payload: bytes,
    user: Sequence[tuple[str, str]],
    context: Sequence[tuple[str, str]],
    room: int = MAX_PROPERTY_BYTES,
    fixed: int = FIXED_PROPERTIES,
) -> Properties:
    """The properties of one message beside the ``fixed`` ones of its destination, which leave ``room`` for them.

    ``payload`` is what is sent, without a context that was in it. ``user`` are the MQTT user properties that remain
    after the trace context was taken out, ``context`` what carries it on beside the traceparent. What does not fit is
    left out, whatever it is, and the message goes on: a tracestate may be as large as all that RocketMQ takes.
    """
    items: list[tuple[str, str]] = []
    optional = [*context]
    if not payload:
        items.append(("mqtt.empty", "true"))
    if publish.expiry is not None:
        items.append(("mqtt.expiry", str(publish.expiry)))
    if publish.payload_format is not None:
        items.append(("mqtt.payload-format", str(publish.payload_format)))
    if publish.correlation_data is not None:
        encoded = base64.b64encode(publish.correlation_data).decode("ascii")
        optional.append(("mqtt.correlation-data", encoded))
    if publish.content_type is not None:
        optional.append(("mqtt.content-type", publish.content_type))
    if publish.response_topic is not None:
        optional.append(("mqtt.response-topic", publish.response_topic))
    if not user and not optional:
        return Properties(items)
    return _limited(items, optional, user, room, MAX_PROPERTIES - fixed - len(items) - 1)  # one for the traceparent


def _limited(
    items: list[tuple[str, str]],
    optional: Sequence[tuple[str, str]],
    user: Sequence[tuple[str, str]],
    limit: int,
    count: int,
) -> Properties:
    """Those that RocketMQ carries: legal, not empty (an empty value gets lost between its proxy and a consumer).

    ``count`` is how many there is room for beside ``items``, ``limit`` how many bytes in all.
    """
    known = _usual(user)
    rest = iter(optional) if known is not None else chain(optional, mapped_user_properties(user))
    known = known or []
    count -= len(known)
    size = sum(len(name) + len(value) for name, value in items) + _PARENT_SIZE
    beside = size + _sizes(optional)
    if beside + len(known) * _LONGEST_KNOWN <= limit:
        size += len(known) * _LONGEST_KNOWN
    elif beside + _sizes(known) <= limit:
        size += _sizes(known)
    else:  # little room, or much to put there: one by one, what is optional first
        count += len(known)
        known, rest = [], chain(optional, mapped_user_properties(user))
    dropped = 0
    for item in rest:
        name, value = item
        cost = len(name) + len(value) if name.isascii() and value.isascii() else _size(name) + _size(value)
        printable = name.isprintable() and value.isprintable()
        if size + cost > limit or not value or not (printable or is_legal(item)):
            dropped += 1
            continue
        items.append(item)
        size += cost
        count -= 1
        if not count:  # a device may have sent tens of thousands
            dropped += sum(1 for _ in rest)
    return Properties(items + known, dropped)


def usual(user: Sequence[tuple[str, str]], room: int) -> list[tuple[str, str]] | None:
    """What :func:`properties` has to give for user properties alone, where that needs no closer look. Hot path."""
    if len(user) * _LONGEST_KNOWN + _PARENT_SIZE > room:
        return None
    return _usual(user)


def _usual(user: Sequence[tuple[str, str]]) -> list[tuple[str, str]] | None:
    """The user properties in RocketMQ's form, where they are few and each is short and legal.

    None where they need a closer look: many, a name twice, gateways passed, something long or illegal.
    """
    if not 0 < len(user) <= _FEW:
        return None
    names = dict(user)
    if len(names) != len(user) or PATH in names:
        return None
    known = [_known.young.get(item) or _learn(item) for item in user]
    return None if None in known else known  # type: ignore[return-value]


def _learn(item: tuple[str, str]) -> tuple[str, str] | None:
    """A user property in RocketMQ's form, if it is short and legal."""
    mapped = _known.get(item)
    if mapped is None:
        mapped = (f"mqtt.user.{item[0]}", item[1])
        if not item[1] or not is_legal(mapped) or _size(mapped[0]) + _size(mapped[1]) > _LONGEST_KNOWN:
            return None
        _known.put(item, mapped)
    return mapped


def mapped_user_properties(user: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """MQTT allows a name several times (MQTT 5.0 section 3.3.2.3.7), RocketMQ does not: number the later ones.

    The gateways passed are no user's property: they travel under their own name.
    """
    seen: dict[str, int] = {}
    for item in user:
        name = item[0]
        if name == PATH:
            continue
        if name in seen:
            nth = seen[name] = seen[name] + 1
            yield f"mqtt.user[{nth}].{name}", item[1]
            continue
        seen[name] = 1
        yield f"mqtt.user.{name}", item[1]


def is_legal(item: tuple[str, str]) -> bool:
    """Whether RocketMQ can carry a property: no control characters and no lone surrogates in its name or value.

    RocketMQ separates properties with U+0001 and U+0002; other control characters are refused by its proxy.
    """
    return not any(not text.isprintable() and _ILLEGAL.search(text) for text in item)


def printable(text: str) -> str:
    """``text`` with what RocketMQ cannot carry (control characters, lone surrogates) written as an escape."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text).encode("utf-8", "backslashreplace").decode()


def passed_before(user: Sequence[tuple[str, str]]) -> str | None:
    """The gateways that a message has passed, comma-separated; None when this is the first.

    What no gateway writes (control characters, more than 2048 characters) is a device's own invention, and ignored: it
    must not stop its message.
    """
    passed = next((value for name, value in user if name == PATH), None)
    return passed if passed is not None and len(passed) <= _MAX_PATH and is_legal((PATH, passed)) else None


def passed_gateways(user: Sequence[tuple[str, str]], gateway: str) -> str:
    """The path that a message has to carry on: the gateways that it passed, and this one.

    :raises Unroutable: it was in this gateway already.
    """
    passed = passed_before(user)
    if passed is None:
        return gateway
    if gateway in passed.split(","):
        raise Unroutable(f"the message passed this gateway already ({PATH} {quoted(passed)})", "loop")
    return f"{passed},{gateway}"
