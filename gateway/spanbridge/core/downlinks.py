"""Downlinks: which RocketMQ messages become which MQTT messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spanbridge.core.policy import ContextPolicy
from spanbridge.core.template import Template


class Away(StrEnum):
    """What becomes of a message whose device is not connected."""

    WAIT = "wait"
    """The MQTT broker queues it in the device's session. It counts as delivered once the broker has it."""
    RETAIN = "retain"
    """It is published with RETAIN: the broker keeps the last of each topic."""
    EXPIRE = "expire"
    """As ``wait``, with a Message Expiry Interval, and dropped here once that has passed."""
    RETRY = "retry"
    """Without a subscriber (reason code 0x10, MQTT 5.0 only) it is a failure, and comes again later."""


class ContextForm(StrEnum):
    """How a trace context travels in an MQTT message."""

    COMPACT = "compact"
    """User property ``tp`` (MQTT 5.0)."""
    W3C = "w3c"
    """User property ``traceparent`` (MQTT 5.0)."""
    TOPIC_SUFFIX = "topic-suffix"
    """Two more levels of the topic; never with RETAIN."""
    JSON_PAYLOAD = "json-payload"
    """A member of the JSON object that is the payload."""
    NONE = "none"
    """Not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downlink:
    """What happens to messages of one RocketMQ topic that a consumer group receives.

    ``filter`` is a tag expression (``*``, ``a || b``), or SQL92 when ``sql`` is true. ``publish`` is the template of
    the MQTT topic. ``expiry`` is in seconds: the Message Expiry Interval of messages that bring none. ``broker`` names
    the MQTT connection to publish to. ``form`` None means ``compact`` on MQTT 5.0, none on 3.1.1.
    """

    name: str
    topic: str
    group: str
    publish: Template
    broker: str
    filter: str = "*"
    sql: bool = False
    qos: int = 1
    retain: bool = False
    expiry: int | None = None
    away: Away = Away.WAIT
    context: ContextPolicy = ContextPolicy.CONTINUE
    trust: bool = True
    form: ContextForm | None = None
