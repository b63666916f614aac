"""The two message forms that the gateway translates between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Publish:
    """One MQTT application message as a source received it (MQTT 5.0 section 3.3, 3.1.1 section 3.3).

    ``topic`` has its alias resolved. ``expiry`` is the Message Expiry Interval in seconds, counted from
    ``received_ns`` (Unix time in nanoseconds, taken once per socket read). ``payload_format`` is the Payload Format
    Indicator (0 or 1), None when the packet has none. v3.1.1 sources leave the v5 fields empty. Nobody changes a
    message after the source made it.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    user_properties: Sequence[tuple[str, str]] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    expiry: int | None = None
    payload_format: int | None = None
    received_ns: int = 0
    fault: str | None = None
    """Why this packet could not be decoded. ``topic`` is then a readable form of what it held, ``payload`` the rest."""


@dataclass(slots=True, frozen=True)
class Destination:
    """Where a message goes in RocketMQ and what is fixed about it: the same for all messages of one recipe.

    ``properties`` are user properties in the order they are written. ``group`` is RocketMQ's message group (FIFO
    topics); ``delivery_timestamp_ms`` is Unix time in milliseconds (DELAY topics).
    """

    topic: str
    tag: str | None = None
    keys: tuple[str, ...] = ()
    group: str | None = None
    delivery_timestamp_ms: int | None = None
    properties: tuple[tuple[str, str], ...] = field(default=())
