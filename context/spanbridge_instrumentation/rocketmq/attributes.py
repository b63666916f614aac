"""What spans and links say of a message. Conventions for RocketMQ, version 1.44.

https://opentelemetry.io/docs/specs/semconv/messaging/rocketmq/
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.util.types import AttributeValue

from spanbridge_instrumentation._shared import semconv

MESSAGE_TYPE: Final = "messaging.rocketmq.message.type"
TAG: Final = "messaging.rocketmq.message.tag"
KEYS: Final = "messaging.rocketmq.message.keys"
GROUP: Final = "messaging.rocketmq.message.group"
DELIVERY_TIMESTAMP: Final = "messaging.rocketmq.message.delivery_timestamp"

# Not in the conventions, which know no RocketMQ 5 consumers; named after theirs.
PRIORITY: Final = "messaging.rocketmq.message.priority"
LITE_TOPIC: Final = "messaging.rocketmq.message.lite_topic"
DELIVERY_ATTEMPT: Final = "messaging.rocketmq.message.delivery_attempt"
INVISIBLE_DURATION: Final = "messaging.rocketmq.message.invisible_duration"
WAITED: Final = "spanbridge.receive.waited"
PROBLEM: Final = "spanbridge.context.problem"

# apache/rocketmq-apis, definition.proto, enum MessageType; "lite" and "priority" are new since the conventions' list.
_TYPES: Final = {1: "normal", 2: "fifo", 3: "delay", 4: "transaction", 5: "lite", 6: "priority"}

_MILLISECONDS: Final = 100_000_000_000
"""A time from here on is in milliseconds (from 1973), below in seconds (until 5138)."""

Attributes = dict[str, AttributeValue]


def of_outgoing(message: Any, *, transaction: bool) -> Attributes:
    """A message that is to be sent: the client gives it its type later, by the same rules."""
    found = _content(message)
    group, lite_topic, due, priority = (
        message.message_group, message.lite_topic, message.delivery_timestamp, message.priority
    )  # fmt: skip
    if group:
        found[GROUP] = group
    if lite_topic:
        found[LITE_TOPIC] = lite_topic
    if transaction:
        found[MESSAGE_TYPE] = "transaction"
    elif group:
        found[MESSAGE_TYPE] = "fifo"
    elif lite_topic:
        found[MESSAGE_TYPE] = "lite"
    elif due:
        found[MESSAGE_TYPE] = "delay"
    elif priority is not None:
        found[MESSAGE_TYPE] = "priority"
    else:
        found[MESSAGE_TYPE] = "normal"
    if priority is not None:
        found[PRIORITY] = priority
    if due:
        # The client sends this number as seconds, and gives milliseconds for it on the other side.
        found[DELIVERY_TIMESTAMP] = due * 1000 if due < _MILLISECONDS else due
    return found


def of_incoming(message: Any, link: Attributes) -> Attributes:
    """A message that was received; ``link`` is what :func:`of_link` says of it."""
    found = _content(message)
    found.update(link)
    kind = _TYPES.get(message.message_type)
    if kind is not None:
        found[MESSAGE_TYPE] = kind
    if (priority := message.priority) or kind == "priority":
        found[PRIORITY] = priority
    if due := message.delivery_timestamp:
        found[DELIVERY_TIMESTAMP] = due
    return found


def of_link(message: Any) -> Attributes:
    """What tells a message from others that were received with it. The client's properties cost a call each."""
    found: Attributes = {}
    if message_id := message.message_id:
        found[semconv.MESSAGE_ID] = message_id
    if group := message.message_group:
        found[GROUP] = group
    if lite_topic := message.lite_topic:
        found[LITE_TOPIC] = lite_topic
    if attempt := message.delivery_attempt:
        found[DELIVERY_ATTEMPT] = attempt
    return found


def _content(message: Any) -> Attributes:
    found: Attributes = {semconv.BODY_SIZE: len(message.body or b"")}
    if tag := message.tag:
        found[TAG] = tag
    if keys := message.keys:
        found[KEYS] = sorted(keys)
    return found
