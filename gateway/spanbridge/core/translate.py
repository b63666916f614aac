"""An MQTT message as a RocketMQ message: which address, which properties, which body.

The mapping is invertible: what goes up and comes down again is the same message (docs/delivery.md).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from spanbridge.core import rocketmq_rules as rules
from spanbridge.core.message import Address, Publish
from spanbridge.core.routes import Match
from spanbridge.core.template import Scope, Template
from spanbridge.core.text import quoted

PATH = "spanbridge.path"
"""Property that lists the gateways a message has passed, comma-separated, so that none forwards it twice."""

EMPTY_BODY = b"\0"
"""RocketMQ refuses empty bodies (MESSAGE_BODY_EMPTY); property ``mqtt.empty`` tells this from a real zero byte."""

MAX_PROPERTIES = rules.MAX_USER_PROPERTIES
MAX_PROPERTY_BYTES = rules.MAX_PROPERTIES_BYTES
FIXED_PROPERTIES = 4
_MAX_PATH = 2048
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999, the last that protobuf's ``Timestamp`` holds: a later one would spoil its whole request."""
_LONGEST_TIME = 32

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Unroutable(ValueError):  # noqa: N818 - an outcome, counted under ``reason``, rather than a fault of ours
    """The message has no place to go. ``reason`` is a stable word for the dropped counter."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Properties(NamedTuple):
    """User properties ready for RocketMQ. ``dropped`` counts those that could not be carried."""

    items: list[tuple[str, str]]
    dropped: int = 0


def address(match: Match, publish: Publish, *, path: str, client_id: str) -> Address:
    """Where a message goes. Fixed by its MQTT topic, QoS and RETAIN flag unless ``match.route.per_message``.

    :raises Unroutable: the topic template came out empty, or a delivery timestamp is not a number.
    """
    route = match.route
    scope = Scope(match.levels, match.named, publish.user_properties, client_id)
    topic = _sanitised(route.topic, scope, rules.sanitise_topic)
    if not topic:
        raise Unroutable(f"route {route.name!r}: the topic template {route.topic.text!r} came out empty", "no_topic")
    return Address(
        topic=topic,
        tag=_sanitised(route.tag, scope, rules.sanitise_tag),
        keys=tuple(key for key in (_sanitised(template, scope, rules.sanitise_key) for template in route.keys) if key),
        group=_sanitised(route.message_group, scope, rules.sanitise_group),
        delivery_timestamp_ms=_timestamp(route.delivery_timestamp, scope),
        properties=_fixed(publish, path),
    )


def _fixed(publish: Publish, path: str) -> tuple[tuple[str, str], ...]:
    fixed = (("mqtt.topic", publish.topic), ("mqtt.qos", str(publish.qos)), (PATH, path))
    return (*fixed, ("mqtt.retain", "true")) if publish.retain else fixed


def _sanitised(template: Template | None, scope: Scope, sanitise: Callable[[str], str | None]) -> str | None:
    """What devices name, in RocketMQ's alphabet. What the configuration spells out was checked there, and stays."""
    text = _optional(template, scope)
    if text is None or template is None or not template.fields:
        return text
    return sanitise(text)


def _optional(template: Template | None, scope: Scope) -> str | None:
    return (template.render(scope) or None) if template is not None else None


def _timestamp(template: Template | None, scope: Scope) -> int | None:
    text = _optional(template, scope)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_TIME or int(text) > _LATEST_MS:
        raise Unroutable(f"delivery_timestamp {quoted(text)} is not Unix time in milliseconds", "bad_timestamp")
    return int(text)


def room(address: Address) -> int:
    """Bytes that the rest of a message's properties may take, where RocketMQ counts its tag and keys as well."""
    fixed = (address.tag or "", *address.keys, *(text for item in address.properties for text in item))
    return MAX_PROPERTY_BYTES - sum(len(text.encode("utf-8", "replace")) for text in fixed)


def properties(
    publish: Publish,
    user: Sequence[tuple[str, str]],
    context: Sequence[tuple[str, str]],
    room: int = MAX_PROPERTY_BYTES,
) -> Properties:
    """The properties of one message beside those fixed by its address, which leave ``room`` for them.

    ``user`` are the MQTT user properties that remain after the trace context was taken out, ``context`` what carries it
    on. Those come first: nothing that a device adds can push them out. What does not fit is left out, whatever it is,
    and the message goes on: a tracestate may be as large as all that RocketMQ takes.
    """
    parents = 1 if context and context[0][0] == "traceparent" else 0
    items, optional = [*context[:parents]], [*context[parents:]]
    if not publish.payload:
        items.append(("mqtt.empty", "true"))
    if publish.expiry is not None:
        items.append(("mqtt.expiry", str(publish.expiry)))
    if publish.correlation_data is not None:
        optional.append(("mqtt.correlation-data", base64.b64encode(publish.correlation_data).decode("ascii")))
    if publish.content_type is not None:
        optional.append(("mqtt.content-type", publish.content_type))
    if publish.response_topic is not None:
        optional.append(("mqtt.response-topic", publish.response_topic))
    if not user and not optional:
        return Properties(items)
    return _limited(items, optional, user, room)


def _user_names(user: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """MQTT allows a name several times (MQTT 5.0 section 3.3.2.3.7), RocketMQ does not: number the later ones.

    The gateways passed are no user's property: they travel under their own name.
    """
    seen: dict[str, int] = {}
    for name, value in user:
        if name == PATH:
            continue
        nth = seen[name] = seen.get(name, 0) + 1
        yield (f"mqtt.user.{name}" if nth == 1 else f"mqtt.user[{nth}].{name}"), value


def _limited(
    items: list[tuple[str, str]], optional: Sequence[tuple[str, str]], user: Sequence[tuple[str, str]], limit: int
) -> Properties:
    count = MAX_PROPERTIES - FIXED_PROPERTIES - len(items)
    size = sum(len(name) + len(value) for name, value in items)
    dropped = 0
    rest = chain(optional, _user_names(user))
    for name, value in rest:
        cost = len(name) + len(value) if name.isascii() and value.isascii() else len((name + value).encode())
        if size + cost > limit or _has_control(name) or _has_control(value):
            dropped += 1
            continue
        items.append((name, value))
        size += cost
        count -= 1
        if not count:  # a device may have sent tens of thousands
            dropped += sum(1 for _ in rest)
    return Properties(items, dropped)


def _has_control(text: str) -> bool:
    """RocketMQ separates properties with U+0001 and U+0002; other control characters are refused by its proxy."""
    return not text.isprintable() and _CONTROL.search(text) is not None


def is_legal(item: tuple[str, str]) -> bool:
    """Whether RocketMQ can carry a property: no control characters in its name or value."""
    return not (_has_control(item[0]) or _has_control(item[1]))


def passed_before(user: Sequence[tuple[str, str]]) -> str | None:
    """The gateways that a message has passed, comma-separated; None when this is the first.

    What no gateway writes (control characters, more than 2048 characters) is a device's own invention, and ignored: it
    must not stop its message.
    """
    passed = next((value for name, value in user if name == PATH), None)
    return passed if passed is not None and len(passed) <= _MAX_PATH and not _has_control(passed) else None


def passed_gateways(user: Sequence[tuple[str, str]], gateway: str) -> str | None:
    """The path that a message has to carry on when it has passed gateways before; None when this is the first.

    :raises Unroutable: it was in this gateway already.
    """
    passed = passed_before(user)
    if passed is None:
        return None
    if gateway in passed.split(","):
        raise Unroutable(f"the message passed this gateway already ({PATH} {quoted(passed)})", "loop")
    return f"{passed},{gateway}"
