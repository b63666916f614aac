"""What becomes of messages that have just come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spanbridge.core.delivery import Acknowledger, Delivery
from spanbridge.core.message import Message
from spanbridge.rocketmq.held import Arrival, ReceivedMessage
from spanbridge.rocketmq.remoting.inbox import ConsumerParts
from spanbridge.rocketmq.remoting.incoming import Incoming, read_stored


@dataclass(slots=True)
class Arrived:
    """``taken`` are all that the group subscribes to. Of these, ``fresh`` were not in our hands before, and ``over``
    were delivered as often as the group allows. ``unwanted`` have another tag whose hash is the same.
    """

    taken: list[Message] = field(default_factory=list)
    fresh: list[Delivery[Message]] = field(default_factory=list)
    over: list[Delivery[Message]] = field(default_factory=list)
    unwanted: list[Delivery[Message]] = field(default_factory=list)


def sort_incoming(
    parts: ConsumerParts, source: Acknowledger[Message], broker: str, messages: Sequence[Incoming], began_ns: int
) -> Arrived:
    """Have these in our hands. ``began_ns`` is when they were asked for (monotonic)."""
    now, now_ns = time.monotonic_ns(), time.time_ns()
    options, held, wants = parts.options, parts.held, parts.subscription.wants
    topic, limit, most = options.topic, options.max_body_bytes, parts.subscription.settings.max_attempts
    arrival = Arrival(source, broker, now, began_ns + int(options.invisible * 1e9))
    arrived = Arrived()
    for stored, handle, attempts, place in messages:
        message = read_stored(stored, topic, broker, now_ns, attempts=attempts, limit=limit)
        delivery = ReceivedMessage(message, arrival, handle, handle.offset)
        if place:
            delivery.key = f"{place} {delivery.key}"
        if held.take(delivery) is not None:
            arrived.taken.append(message)
        elif not wants(message.tag):
            arrived.unwanted.append(delivery)
        elif attempts >= most:
            arrived.over.append(delivery)
        else:
            arrived.taken.append(message)
            arrived.fresh.append(delivery)
    return arrived


def once_more(delivery: ReceivedMessage, source: Acknowledger[Message]) -> ReceivedMessage:
    """The same message, delivered again by us."""
    again = replace(delivery.message, attempt=delivery.message.attempt + 1)
    arrival = Arrival(source, delivery.broker, time.monotonic_ns(), delivery.visible_ns)
    fresh = ReceivedMessage(again, arrival, delivery.handle, delivery.offset)
    fresh.key = delivery.key
    return fresh
