"""The two message forms that the gateway translates between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(slots=True, eq=False)
class Message:
    """One RocketMQ message as a source received it. Nobody changes it after the source made it.

    ``tag``, ``keys``, ``group`` (message group) and ``delivery_timestamp_ms`` are system properties, None or empty
    where the message has none. ``properties`` are its user properties, the carriers of a trace context among them;
    ``trace_context`` is the system property of that name. ``born_ns`` and ``stored_ns`` (by the producer's and by the
    broker's clock) and ``received_ns`` are Unix time in nanoseconds, 0 where unknown. ``attempt`` is how often it has
    been delivered, this time included.
    """

    topic: str
    body: bytes
    message_id: str = ""
    tag: str | None = None
    keys: Sequence[str] = ()
    group: str | None = None
    delivery_timestamp_ms: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    trace_context: str | None = None
    born_ns: int = 0
    stored_ns: int = 0
    received_ns: int = 0
    attempt: int = 1
    queue: str = ""
    """Broker and number of the queue that it came from, for logs: order holds within one."""
    fault: str | None = None
    """Why the body could not be decoded (unknown encoding, wrong digest). ``body`` is then what was stored."""
