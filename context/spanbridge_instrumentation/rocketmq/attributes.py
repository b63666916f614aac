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
    found = _common(message)
    if transaction:
        found[MESSAGE_TYPE] = "transaction"
    elif message.message_group:
        found[MESSAGE_TYPE] = "fifo"
    elif message.lite_topic:
        found[MESSAGE_TYPE] = "lite"
    elif message.delivery_timestamp:
        found[MESSAGE_TYPE] = "delay"
    elif message.priority is not None:
        found[MESSAGE_TYPE] = "priority"
    else:
        found[MESSAGE_TYPE] = "normal"
    if message.priority is not None:
        found[PRIORITY] = message.priority
    due = message.delivery_timestamp
    if due:
        # The client sends this number as seconds, and gives milliseconds for it on the other side.
        found[DELIVERY_TIMESTAMP] = due * 1000 if due < _MILLISECONDS else due
    return found


def of_incoming(message: Any, link: Attributes) -> Attributes:
    """A message that was received; ``link`` is what :func:`of_link` says of it."""
    found = _common(message)
    found.update(link)
    kind = _TYPES.get(message.message_type)
    if kind is not None:
        found[MESSAGE_TYPE] = kind
    if message.priority or kind == "priority":
        found[PRIORITY] = message.priority
    if message.delivery_timestamp:
        found[DELIVERY_TIMESTAMP] = message.delivery_timestamp
    return found


def of_link(message: Any) -> Attributes:
    """What tells a message from others that were received with it."""
    found: Attributes = {}
    if message.message_id:
        found[semconv.MESSAGE_ID] = message.message_id
    if message.message_group:
        found[GROUP] = message.message_group
    if message.lite_topic:
        found[LITE_TOPIC] = message.lite_topic
    if message.delivery_attempt:
        found[DELIVERY_ATTEMPT] = message.delivery_attempt
    return found


def _common(message: Any) -> Attributes:
    found: Attributes = {semconv.BODY_SIZE: len(message.body or b"")}
    if message.tag:
        found[TAG] = message.tag
    if message.keys:
        found[KEYS] = sorted(message.keys)
    if message.message_group:
        found[GROUP] = message.message_group
    if message.lite_topic:
        found[LITE_TOPIC] = message.lite_topic
    return found
