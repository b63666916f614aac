"""Errors of the gateway. Adapters map every third-party exception to one of these before it leaves them."""

from __future__ import annotations

from typing import TypeVar


class SpanbridgeError(Exception):
    """Base of everything the gateway raises on purpose.

    ``reason`` is a short, stable, low-cardinality word for metrics and span attributes (``error.type``).
    """

    reason = "error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


E = TypeVar("E", bound=BaseException)


def bare(error: E) -> E:
    """The error without its traceback, its cause and its context.

    A traceback holds the frames that it passed, and so what they work on. An error that is kept in a variable of such
    a frame closes a cycle, which keeps a whole batch alive until the cyclic collector runs.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


class ConfigError(SpanbridgeError):
    """The start failed on something that another start would fail on too: somebody has to mend a setting."""

    reason = "config"


class SourceError(SpanbridgeError):
    """An MQTT connection failed or the broker refused something. The source reconnects by itself."""

    reason = "source"


class SinkError(SpanbridgeError):
    """The sink did not take a batch. Sub-classes say what can be done about it.

    ``stored`` holds the indexes of the batch that are known to be stored although the send as a whole failed: those
    are done, the caller keeps the rest.
    """

    reason = "sink"
    stored: frozenset[int] = frozenset()


class SinkUnavailable(SinkError):  # noqa: N818 - named for the state, as the field does
    """Nothing usable answered: refused, reset, deadline passed, no route yet. Try again after a pause."""

    reason = "unavailable"


class SinkThrottled(SinkError):  # noqa: N818
    """RocketMQ asked for less (TOO_MANY_REQUESTS, TIMEOUT_CLEAN_QUEUE). Try again, slower."""

    reason = "throttled"


class OffsetsError(SpanbridgeError):
    """Name server or broker did not say where a consumer group stands. Asking again later may help."""

    reason = "offsets"


TOPIC_AT_FAULT = frozenset({
    "topic_not_found", "not_found", "no_writable_queue", "illegal_topic", "forbidden",
    "message_property_conflict_with_type",
})  # fmt: skip
"""Reasons that concern one topic of the sink's. All others may concern every message."""


class SinkMisconfigured(SinkError):  # noqa: N818
    """An operator has to mend something (topic missing, not authorised). Messages are kept and tried again."""

    reason = "misconfigured"

    @property
    def of_topic(self) -> bool:
        """Whether the topic alone is at fault, so that messages to others may well be stored."""
        return self.reason in TOPIC_AT_FAULT


class NoSubscribers(SinkError):  # noqa: N818
    """The MQTT broker took a message that nobody subscribes to (MQTT 5.0 section 3.4.2.1, reason code 0x10)."""

    reason = "no_matching_subscribers"


class SinkRejected(SinkError):  # noqa: N818
    """RocketMQ will never take this content (too large, illegal key, tag or property).

    For a batch of several, the sender splits it to find the message meant.
    """

    reason = "rejected"
