"""Why messages of a route can be refused, as far as its settings tell: labels that are known at the start.

RocketMQ's own reasons are not among them: a cluster may answer with any of its codes.
"""

from __future__ import annotations

from spanbridge.core.routes import Route

UNROUTED = ("unroutable", "malformed", "internal", "stopping")
"""Reasons of messages that are refused before they have a route."""

SPOOLED = ("spool_full", "qos0_share", "max_age")
"""Reasons of messages that the spool does not take, or gives up."""

NEVER_REJECTED = frozenset({"expired", "stopping", *SPOOLED})
"""Reasons for which a message is dropped even where there is a rejected topic."""


def known_reasons(route: Route) -> tuple[str, ...]:
    """The reasons for which messages of ``route`` can be refused, without those that only RocketMQ knows."""
    group, timestamp = route.message_group, route.delivery_timestamp
    possible = {
        "loop": True,
        "expired": True,
        "message_body_too_large": True,
        "too_large": route.max_payload is not None,
        "no_topic": route.topic.from_device,
        "topic_not_found": route.topic.from_device,
        "no_message_group": group is not None,
        "no_delivery_timestamp": timestamp is not None,
        "bad_timestamp": timestamp is not None,
    }
    return tuple(reason for reason, can_be in possible.items() if can_be)
